"""Files that are there whole or not at all, and on the disk, whoever is killed meanwhile."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from vivace.core.errors import DiskFull, lacks_room

PART = "part"
"""What the name of a file that is being written ends with."""


@contextlib.contextmanager
def room_for(what: str, folder: Path, needed_bytes: int | None = None) -> Iterator[None]:
    """Where the disk is full inside, raise DiskFull: what there was no room for, in which folder, how the system says
    it, how much is needed, where that is known, and how much is free there.

    >>> with room_for("a list", Path("/"), 2_500_000):
    ...     raise OSError(28, "No space left")
    Traceback (most recent call last):
    vivace.core.errors.DiskFull: no room for a list in / (No space left): it needs 2.5 MB, and ... MB are free there
    """
    try:
        yield
    except DiskFull:
        raise
    except Exception as error:  # libraries have errors of their own for a full disk
        if not lacks_room(error):
            raise
        needs = "" if needed_bytes is None else f"it needs {needed_bytes / 1e6:,.1f} MB, and "
        said = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise DiskFull(
            f"no room for {what} in {folder} ({said}): {needs}{free_bytes(folder) / 1e6:,.1f} MB are free there"
        ) from error


def free_bytes(folder: Path) -> int:
    """What may be written to the disk of a folder, which need not be there yet."""
    return shutil.disk_usage(next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())).free


def emptiest(*folders: Path) -> Path:
    """Of some folders that with the least room: the one that an error which names none is likely to be about."""
    return min(folders, key=free_bytes)


@contextlib.contextmanager
def whole(file: Path, needed_bytes: int | None = None) -> Iterator[Path]:
    """The path beside a file to write to; at the end it takes the file's place. What fails leaves the file as it was.
    Raises DiskFull, with what the file needs where that is given.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     with whole(Path(name) / "a.txt") as beside:
    ...         _ = beside.write_text("all of it")
    ...     [(one.name, one.read_text()) for one in Path(name).iterdir()]
    [('a.txt', 'all of it')]
    """
    beside = file.with_name(f"{file.name}.{PART}")
    try:
        with room_for(file.name, file.parent, needed_bytes):
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
