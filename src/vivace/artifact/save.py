"""Writing an artifact: beside its place first, checked, then moved there in one step; the previous one stays intact."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from vivace.artifact.manifest import MANIFEST, PROGRAM, Manifest, digest, files_of
from vivace.core.errors import DiskFull, EnvironmentFault, UsageError, WorkerFailure, lacks_room
from vivace.core.measurement import Outcome
from vivace.devices.disk import flush

_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


def check_destination(out: Path, marks: Sequence[str] = (MANIFEST,), earlier: str = "an artifact") -> None:
    """Raise a clear error when an artifact cannot be written at `out`, before any work is done.

    Allowed are a path that does not exist, an empty folder, and an artifact, which is replaced in the end: a folder
    that holds one of the files `marks`, which the message calls `earlier`.
    """
    allowed = f"give a new path, an empty folder or {earlier} to replace"
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise UsageError(f"out (--out) is {out}, which is not a folder; {allowed}")
    if out.is_dir() and any(out.iterdir()) and not any((out / mark).is_file() for mark in marks):
        raise UsageError(f"out (--out) is {out}, a folder with other files in it; {allowed}")
    check_place(out)


def check_place(out: Path) -> None:
    """Raise UsageError where no folder can be at `out`, and EnvironmentFault where nobody may make or fill one."""
    parent = next(p for p in (out.absolute(), *out.absolute().parents) if p.exists())
    if not parent.is_dir():
        raise UsageError(
            f"out (--out) is {out}, but {parent} is a file, so no folder can be made below it; give another path"
        )
    if not os.access(parent, os.W_OK | os.X_OK):
        raise EnvironmentFault(
            f"cannot write to {parent}: permission denied; give an out (--out) in a folder that you own"
        )


@contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """Turn the system's 'no space left' and 'permission denied' into our errors, with the place and what to do."""
    try:
        yield
    except WorkerFailure as failure:
        if failure.outcome is Outcome.DISK_FULL:
            raise DiskFull(f"{failure.reason}; free some space or give another out (--out)") from failure
        raise
    except DiskFull:
        raise
    except Exception as error:  # libraries have errors of their own for a full disk
        if lacks_room(error):
            raise DiskFull(
                f"the disk is full: cannot write to {where}; free some space or give another out (--out)"
            ) from error
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise EnvironmentFault(
                f"cannot write to {where}: {error.strerror}; give an out (--out) in a folder that you own"
            ) from error
        raise


def seal(folder: Path, manifest: Manifest, texts: Mapping[str, str]) -> Manifest:
    """Write the texts (such as results.json) and, last, the manifest with every file's digest, flushed to the disk."""
    with disk_errors(folder):
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        entries = {name: digest(path) for name, path in files_of(folder).items()}
        manifest = manifest.model_copy(update={"files": entries})
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
        for path in (*files_of(folder).values(), folder / MANIFEST):
            flush(path)
    return manifest


def publish(staged: Path, out: Path) -> None:
    """Move a sealed folder to its place; an artifact that was there is exchanged in one step and then removed.

    Files of the old one that are mapped by a running process stay valid: they are unlinked, never overwritten.
    """
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.is_dir() and not any(out.iterdir()):
            out.rmdir()
        if not out.exists():
            staged.rename(out)
        elif _exchange(staged, out):
            shutil.rmtree(staged)
        else:
            aside = out.with_name(f".{out.name}.previous-{os.getpid()}")
            out.rename(aside)
            staged.rename(out)
            shutil.rmtree(aside)
        flush(out.parent)


def stage_program(program: Path, staged: Path) -> None:
    """Copy a program folder into a new artifact folder."""
    with disk_errors(staged):
        staged.mkdir(parents=True)
        shutil.copytree(program, staged / PROGRAM)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two paths atomically (Linux renameat2); False where the system cannot."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    paths = os.fsencode(one.absolute()), os.fsencode(other.absolute())
    return bool(renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) == 0)
