"""The folders of checkpoints: each is there whole or not at all, whenever a process is killed or the disk fills."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from vivace.core.documents import strict_json
from vivace.devices.disk import PART, flush, let_others_read, room_for

TENSORS, NOTE = "state.safetensors", "state.json"
KEPT = 2
"""Checkpoints that stay: the newest, and the one before it."""
PREFIX = "step-"
BEFORE = "before"
"""What the hidden folder ends with in which a checkpoint waits that is replaced; in PART, one is written or removed."""


@dataclasses.dataclass(frozen=True)
class Captured:
    """A checkpoint in memory."""

    name: str
    note: dict[str, Any]
    tensors: dict[str, Tensor]


def keep(folder: Path, found: Captured, is_proved: bool = False) -> None:
    """Write a checkpoint's files, beside and then renamed; older ones go but one, but the newest that is proved, and
    but the newest of these that an epoch begins with."""
    final, note = folder / found.name, {**found.note, "proved": is_proved}
    part, before = _hidden(final, PART), _hidden(final, BEFORE)
    clear_unfinished(folder)
    needed = sum(tensor.nbytes for tensor in found.tensors.values())
    try:
        with room_for("a checkpoint", folder, needed):
            part.mkdir(parents=True)
            save_file(found.tensors, part / TENSORS)
            let_others_read(part / TENSORS)
            (part / NOTE).write_text(json.dumps(note, allow_nan=False), encoding="utf-8")
            for file in (part / TENSORS, part / NOTE):
                flush(file)
            if final.exists():
                final.rename(before)
            part.rename(final)
            flush(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    shutil.rmtree(before, ignore_errors=True)
    stays = _proved(folder)
    for old in every(folder)[:-KEPT]:
        if old not in stays:
            remove(old)


def clear_unfinished(folder: Path) -> None:
    """Remove what a process that was killed left of a checkpoint that it wrote."""
    every(folder)  # puts right what must stay
    for left in folder.glob(f".{PREFIX}*"):
        shutil.rmtree(left, ignore_errors=True)


def every(folder: Path) -> list[Path]:
    """The checkpoints that are there, the newest last. What was killed between two renames is put right."""
    if not folder.is_dir():
        return []
    for before in folder.glob(f".{PREFIX}*.{BEFORE}"):
        final = folder / before.name.removeprefix(".").removesuffix(f".{BEFORE}")
        if not final.exists():
            before.rename(final)
    return sorted(path for path in folder.glob(f"{PREFIX}*") if (path / NOTE).is_file())


def newest(folder: Path) -> Path | None:
    """The newest checkpoint that is there, if any."""
    found = every(folder)
    return found[-1] if found else None


def newest_proved(folder: Path, most: int | None = None) -> Path | None:
    """The newest of those that are proved, if any; `most` is how many steps it may have."""
    known = (one for one in reversed(every(folder)) if most is None or steps_of(one) <= most)
    return next((one for one in known if _note(one).get("proved") is True), None)


def _proved(folder: Path) -> list[Path]:
    """The newest that is proved, and the newest of these that an epoch begins with."""
    proved = [one for one in reversed(every(folder)) if _note(one).get("proved") is True]
    return [*proved[:1], *[one for one in proved if _note(one).get("batch") == 0][:1]]


def steps_of(checkpoint: Path) -> int:
    """After how many steps it was taken."""
    return int(checkpoint.name.removeprefix(PREFIX))


def back_to_proved(folder: Path, most: int | None = None) -> int:
    """Remove what came after the newest checkpoint that is proved (and of at most so many steps); after how many steps
    that is, 0 where all went."""
    proved = newest_proved(folder, most)
    for one in every(folder):
        if proved is None or one.name > proved.name:
            remove(one)
    return 0 if proved is None else steps_of(proved)


def remove(checkpoint: Path) -> None:
    """By another name first, so that none is ever half there."""
    part = _hidden(checkpoint, PART)
    shutil.rmtree(part, ignore_errors=True)
    checkpoint.rename(part)
    shutil.rmtree(part, ignore_errors=True)


def _hidden(checkpoint: Path, ending: str) -> Path:
    return checkpoint.parent / f".{checkpoint.name}.{ending}"


def _note(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint's note says; nothing where it cannot be read."""
    try:
        note = strict_json.loads((checkpoint / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}
