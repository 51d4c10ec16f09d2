"""Files that are there whole or not at all, and on the disk, whoever is killed meanwhile."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

PART = "part"
"""What the name of a file that is being written ends with."""


@contextlib.contextmanager
def whole(file: Path) -> Iterator[Path]:
    """The path beside a file to write to; at the end it takes the file's place. What fails leaves the file as it was.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     with whole(Path(name) / "a.txt") as beside:
    ...         _ = beside.write_text("all of it")
    ...     [(one.name, one.read_text()) for one in Path(name).iterdir()]
    [('a.txt', 'all of it')]
    """
    beside = file.with_name(f"{file.name}.{PART}")
    try:
        yield beside
        flush(beside)
        beside.replace(file)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def write_whole(file: Path, text: str) -> None:
    """Write a text as a file, which is on the disk when this returns."""
    with whole(file) as beside:
        beside.write_text(text, encoding="utf-8")


def let_others_read(file: Path) -> None:
    """Give a file the rights of any new file beside it, by the user's umask. What safetensors writes its owner
    alone may read (0.8), so that an artifact which one user makes another could not serve."""
    probe = file.with_name(f"{file.name}.{os.getpid()}.{PART}")
    descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        file.chmod(os.fstat(descriptor).st_mode & 0o777)
    finally:
        os.close(descriptor)
        probe.unlink()


def flush(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
