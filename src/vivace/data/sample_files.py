"""Tables of samples that are kept on disk for later runs: raw tensors in mapped files, whole or not there at all.

A folder holds one folder for each table, named by its key, with `index.json` and one file for each column. A table is
written beside, flushed and renamed, so that what was interrupted is never read; who writes holds a lock, which the
kernel takes back when a process is killed. Nothing is pickled: the structure of a sample is read from the dataset anew.
What else lies in the folder is left alone: only folders whose name is a key are ever removed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import math
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from vivace.core.documents import strict_json
from vivace.core.errors import DiskFull
from vivace.data.sample_table import SampleTable, Shape
from vivace.devices import ceiling_store
from vivace.devices.disk import flush

SCHEMA = 2
INDEX, LOCK, PART = "index.json", "lock", "part"
SUM, CHUNK_BYTES = "sum", 1 << 20
"""What in the index tells damaged columns, and of how many bytes each number is that goes into it."""
SPARE_BYTES = 1 << 28
"""Room on the disk that a cache leaves."""
KEY = re.compile(r"[0-9a-f]{32}")
"""What a table's folder is called: a fingerprint."""
LARGEST_INDEX = 1 << 20
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def samples_folder() -> Path:
    """Where tables are kept unless another folder is given: below $XDG_CACHE_HOME, or ~/.cache."""
    return ceiling_store.cache_folder().parent / "samples"


@dataclasses.dataclass(frozen=True)
class SampleFiles:
    """A folder of tables that take `most_bytes` together; the one that was not used for longest goes first."""

    folder: Path
    most_bytes: int

    def kept(self, key: str, shape: Shape, numbers: Sequence[int], samples: int) -> SampleTable | None:
        """A table that was kept, mapped; None where there is none that is whole and of this shape. Writing into its
        tensors changes nothing on the disk."""
        home = self.folder / key
        try:
            note = _read_note(home / INDEX)
            if not isinstance(note, dict) or {**note, SUM: ""} != {**_note(shape, len(numbers), samples), SUM: ""}:
                return None
            columns = [_mapped(home / str(place), shape, place, len(numbers), False) for place in _places(shape)]
            if note.get(SUM) != _sum_of(columns):
                return None
            with contextlib.suppress(OSError):  # others may share it to be read only
                os.utime(home / INDEX)
        except (OSError, ValueError, RuntimeError):
            return None
        return SampleTable(shape, columns, numbers, samples)

    def keep(
        self, key: str, shape: Shape, numbers: Sequence[int], samples: int, fill: Callable[[list[torch.Tensor]], None]
    ) -> SampleTable:
        """The table of this key: the one that is there, or the one that `fill` writes the columns of.

        Others that want the same wait meanwhile. Raises DiskFull where there is no room, OSError where the folder
        cannot be written; nothing is left behind then.
        """
        with self._locked(key):
            found = self.kept(key, shape, numbers, samples)
            if found is not None:
                return found
            self._write(key, shape, len(numbers), samples, fill)
        found = self.kept(key, shape, numbers, samples)
        if found is None:
            raise OSError(errno.EIO, f"what was written to {self.folder / key} cannot be read")
        return found

    def shrink(self, room: int = 0) -> list[str]:
        """Remove what was left half-written, and the tables that were not used for longest until there are `room` bytes
        for another. Returns the keys that went. Mapped tables live on until they are let go."""
        for part in self.folder.glob(f"*.{PART}"):
            if KEY.fullmatch(part.stem):
                with contextlib.suppress(OSError), self._locked(part.stem, wait=False):
                    _clear(part)
        tables = sorted(self._tables())
        total, gone = sum(size for _, size, _ in tables), list[str]()
        for _, size, home in tables:
            if total + room <= self.most_bytes:
                break
            self._remove(home)
            total -= size
            gone.append(home.name)
        return gone

    def _tables(self) -> Iterator[tuple[int, int, Path]]:
        """When each table was used last, its bytes, its folder."""
        for index in self.folder.glob(f"*/{INDEX}"):
            if not KEY.fullmatch(index.parent.name):
                continue
            with contextlib.suppress(OSError):  # somebody else may be removing it
                size = sum(file.stat().st_size for file in index.parent.iterdir())
                yield index.stat().st_mtime_ns, size, index.parent

    def remove(self, key: str) -> None:
        """Remove one table."""
        self._remove(self.folder / key)

    def _remove(self, home: Path) -> None:
        """By another name first, so that nobody reads what is half removed."""
        dying = home.with_suffix(f".{PART}")
        with contextlib.suppress(OSError):
            home.rename(dying)
            _clear(dying)

    def _write(
        self, key: str, shape: Shape, rows: int, samples: int, fill: Callable[[list[torch.Tensor]], None]
    ) -> None:
        part, needed = self.folder / f"{key}.{PART}", rows * shape.sample_bytes
        _clear(part)
        self.remove(key)  # what is there is not what is wanted
        self.shrink(needed)
        try:
            free = shutil.disk_usage(self.folder).free
            if free < needed + SPARE_BYTES:
                raise DiskFull(f"{needed / 1e9:.2g} GB of samples need room in {self.folder}, where {free / 1e9:.2g} "
                               "GB are free; make room, or give another folder")  # fmt: skip
            part.mkdir()
            for place in _places(shape):
                _reserve(part / str(place), rows * _row_bytes(shape, place))
            columns = [_mapped(part / str(place), shape, place, rows, True) for place in _places(shape)]
            fill(columns)
            note = {**_note(shape, rows, samples), SUM: _sum_of(columns)}
            (part / INDEX).write_text(json.dumps(note), encoding="utf-8")
            for file in (*part.iterdir(), part):
                flush(file)
            part.rename(self.folder / key)
            flush(self.folder)
        except OSError as error:
            if error.errno in DISK_ERRORS and not isinstance(error, DiskFull):
                raise DiskFull(f"the disk of {self.folder} is full ({error.strerror}); make room") from error
            raise
        finally:
            shutil.rmtree(part, ignore_errors=True)

    @contextlib.contextmanager
    def _locked(self, key: str, wait: bool = True) -> Iterator[None]:
        """Nobody else writes this table meanwhile. Raises BlockingIOError where somebody does and `wait` is False."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.folder / f"{key}.{LOCK}", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        with os.fdopen(lock, "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield


def _places(shape: Shape) -> range:
    return range(len(shape.shapes))


def _row_bytes(shape: Shape, place: int) -> int:
    return math.prod(shape.shapes[place]) * int(shape.dtypes[place].itemsize)


def _read_note(file: Path) -> object:
    """Raises ValueError for what is no file of ours: a pipe would be waited for, and anything else read whole."""
    found = file.stat()
    if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST_INDEX:
        raise ValueError(f"{file} is not the index of a table")
    return strict_json.loads(file.read_text(encoding="utf-8"))


def _clear(path: Path) -> None:
    """Remove a folder, or a link instead of one, with what is in it but not what links in it name."""
    if path.is_symlink():
        path.unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def _note(shape: Shape, rows: int, samples: int) -> dict[str, object]:
    """What index.json holds beside the sum; it is compared as a whole."""
    columns = [{"shape": list(s), "dtype": str(d)} for s, d in zip(shape.shapes, shape.dtypes, strict=True)]
    return {"schema": SCHEMA, "rows": rows, "samples": samples, "structure": str(shape.spec), "columns": columns}


def _mapped(file: Path, shape: Shape, place: int, rows: int, is_shared: bool) -> torch.Tensor:
    """A file's bytes as a column. Raises ValueError where it has another size: reading beyond its end would kill."""
    size = rows * _row_bytes(shape, place)
    if file.stat().st_size != size:
        raise ValueError(f"{file} has {file.stat().st_size} bytes, and {size} were expected")
    whole = torch.from_file(str(file), shared=is_shared, size=size, dtype=torch.uint8) if size else torch.empty(0)
    return whole.view(shape.dtypes[place]).reshape(rows, *shape.shapes[place])


def _sum_of(columns: Sequence[torch.Tensor]) -> str:
    """What stands for all bytes of columns: the sums of their chunks as 64-bit numbers, at the speed of memory. Any
    byte that is another one changes it."""
    digest = hashlib.blake2b(digest_size=16)
    for column in columns:
        data = column.reshape(-1).view(torch.uint8)
        whole = len(data) // CHUNK_BYTES * CHUNK_BYTES
        sums = data[:whole].view(torch.int64).reshape(-1, CHUNK_BYTES // 8).sum(1)
        digest.update(sums.numpy().tobytes() + data[whole:].numpy().tobytes())
    return digest.hexdigest()


def _reserve(file: Path, size: int) -> None:
    """A file with its blocks taken: what is mapped and finds the disk full later would be a signal that kills."""
    with file.open("wb") as opened:
        if size:
            os.posix_fallocate(opened.fileno(), 0, size)
