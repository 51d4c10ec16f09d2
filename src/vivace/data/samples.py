"""Calls and outputs kept as safetensors: written once, mapped into memory lazily, nothing pickled."""

from __future__ import annotations

import dataclasses
import errno
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vivace.core.documents import strict_json
from vivace.core.errors import ArtifactError, DiskFull
from vivace.core.structure import Structure
from vivace.core.workload import Mix
from vivace.devices.disk import let_others_read

CALLS_JSON = "calls.json"
CALLS_TENSORS = "calls.safetensors"
MOST_GROUPS = 1 << 24
"""Calls or answers in one file. Where they hold no tensors, nothing else bounds what a file may claim."""
_UNREADABLE = (KeyError, TypeError, ValueError, AttributeError, OverflowError)


@dataclasses.dataclass(frozen=True)
class StoredTensors:
    """Groups of flat tensors in one safetensors file; each group is read when it is asked for."""

    path: Path
    count: int
    leaves: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> list[Tensor]:
        if not -self.count <= index < self.count:
            raise IndexError(f"there is no entry {index} among {self.count} in {self.path}")
        position = index % self.count
        return next(self._read(range(position, position + 1)))

    def __iter__(self) -> Iterator[list[Tensor]]:
        """Every group, from a file that is opened once: opening it reads where all of them lie."""
        return self._read(range(self.count))

    def _read(self, positions: Iterable[int]) -> Iterator[list[Tensor]]:
        entry = "the file"
        try:
            with ExitStack() as kept:
                file = kept.enter_context(safe_open(str(self.path), framework="pt")) if self.leaves else None
                for position in positions:
                    entry = f"entry {position}"
                    yield [file.get_tensor(f"{position}.{leaf}") for leaf in range(self.leaves)] if file else []
        except (OSError, SafetensorError, ValueError, TypeError, RuntimeError) as error:
            raise ArtifactError(f"{entry} of {self.path} cannot be read: {error}") from error


@dataclasses.dataclass(frozen=True)
class StoredCalls(StoredTensors):
    """Calls of a model. `call` is the structure of a dict by parameter name; `positional` of them go by position.

    `mix` says which shape each call has, where they come in several.
    """

    call: Structure
    positional: int
    mix: Mix | None = None

    def arguments(self, index: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """One call as the user would make it: positional arguments and keyword arguments."""
        return self._arguments(self[index])

    def each(self) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
        """Every call as the user would make it, in order."""
        return map(self._arguments, self)

    def _arguments(self, leaves: Sequence[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        named = self.call.build(leaves)
        names = list(named)
        args = tuple(named[name] for name in names[: self.positional])
        return args, {name: named[name] for name in names[self.positional :]}


@dataclasses.dataclass(frozen=True)
class StoredOutputs(StoredTensors):
    """Answers of a model; `answer` is the structure of one."""

    answer: Structure

    def values(self) -> Iterator[Any]:
        """Every answer, nested as the user's model gives it, in order."""
        return map(self.answer.build, self)


def write(
    folder: Path, calls: Sequence[Sequence[Tensor]], call: Structure, positional: int, mix: Mix | None = None
) -> Path:
    """Keep calls in a folder (calls.json and calls.safetensors) and return it. Raises DiskFull."""
    folder.mkdir(parents=True, exist_ok=True)
    _save(folder / CALLS_TENSORS, calls, {})
    note = {"calls": len(calls), "call": call.to_json(), "positional": positional}
    if mix is not None:
        note["mix"] = mix.to_json()
    (folder / CALLS_JSON).write_text(json.dumps(note))
    return folder


def read(folder: Path) -> StoredCalls:
    """Open what `write` kept. Raises ArtifactError when it is not there or was changed."""
    path = folder / CALLS_JSON
    try:
        with path.open("rb") as file:
            note = strict_json.load(file)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"there are no stored calls in {folder}: {path.name}: {error}") from error
    try:
        calls = _calls(folder / CALLS_TENSORS, note)
    except _UNREADABLE as error:
        raise ArtifactError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    _check_entries(calls)
    return calls


def _calls(path: Path, note: Mapping[str, Any]) -> StoredCalls:
    call, positional, count = Structure.from_json(note["call"]), note["positional"], note["calls"]
    if call.kind != "dict" or type(positional) is not int or not 0 <= positional <= len(call.keys):
        raise ValueError(f"{positional!r} parameters of a {call.kind} cannot go by position")
    mix = Mix.from_json(note.get("mix"))
    if mix is not None and len(mix.shapes) != count:
        raise ValueError(f"its mix is of {len(mix.shapes)} calls, not of {count!r}")
    return StoredCalls(path, count, call.tensors, call, positional, mix)


def _check_entries(stored: StoredTensors) -> None:
    """Raise ArtifactError unless the file holds as many tensors as its groups are said to have."""
    path, count = stored.path, stored.count
    try:
        with safe_open(str(path), framework="pt") as file:
            held = len(file.keys())
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from error
    if type(count) is not int or not 0 <= count <= MOST_GROUPS or held != count * stored.leaves:
        raise ArtifactError(f"{path} holds {held} tensors; expected are {count!r} groups of {stored.leaves}")


def write_outputs(path: Path, outputs: Sequence[Sequence[Tensor]], answer: Structure) -> Path:
    """Keep answers in one safetensors file. Raises DiskFull."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _save(path, outputs, {"answer": json.dumps(answer.to_json()), "count": str(len(outputs))})
    return path


def read_outputs(path: Path) -> StoredOutputs:
    """Open what `write_outputs` kept. Raises ArtifactError when it is not there or was changed."""
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata()
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"there are no stored outputs at {path}: {error}") from error
    try:
        answer = Structure.from_json(strict_json.loads(metadata["answer"]))
        outputs = StoredOutputs(path, int(metadata["count"]), answer.tensors, answer)
    except _UNREADABLE as error:
        raise ArtifactError(f"the header of {path} is damaged: {type(error).__name__}: {error}") from error
    _check_entries(outputs)
    return outputs


def _save(path: Path, groups: Sequence[Sequence[Tensor]], metadata: Mapping[str, str]) -> None:
    tensors = {f"{i}.{j}": _own(leaf) for i, group in enumerate(groups) for j, leaf in enumerate(group)}
    try:
        save_file(tensors, str(path), metadata=dict(metadata) or None)
        let_others_read(path)
    except (OSError, SafetensorError) as error:
        if getattr(error, "errno", None) != errno.ENOSPC and "No space left" not in str(error):
            raise
        path.unlink(missing_ok=True)
        size = sum(t.numel() * t.element_size() for t in tensors.values())
        raise DiskFull(f"no room for {size} bytes at {path}; free some space or give another folder") from error


def _own(leaf: Tensor) -> Tensor:
    """A contiguous CPU tensor that shares its storage with nothing, as safetensors demands."""
    return leaf.detach().to(device="cpu", memory_format=torch.contiguous_format, copy=True)
