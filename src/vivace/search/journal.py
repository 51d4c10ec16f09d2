"""The append-only record of a search: flushed to disk at each change, readable after a kill, one writer at a time."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vivace.core.documents import strict_json
from vivace.core.errors import DiskFull, EnvironmentFault

JsonRecord = dict[str, Any]


class Journal:
    """One file of lines `crc32 json`. A torn last line, left by a kill or a full disk, is dropped when it is opened.

    Raises EnvironmentFault when another process is writing it, DiskFull when a line cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise EnvironmentFault(
                f"another search is writing {path}; wait for it to end, or give a different --out"
            ) from None
        whole = list(_whole_lines(path))
        self.records = [record for _, record in whole]
        self._file.truncate(sum(length for length, _ in whole))

    def append(self, record: JsonRecord) -> None:
        """Write one record and wait until it is on the disk."""
        try:
            self._file.write(_line(record))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull(
                    f"the disk is full: cannot write {self.path}; free some space and run again with --resume"
                ) from error
            raise
        self.records.append(record)

    def of_kind(self, kind: str) -> list[JsonRecord]:
        """The records of one kind, oldest first."""
        return [record for record in self.records if record["kind"] == kind]

    def close(self) -> None:
        """Release the file; safe to call twice."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def run_path(destination: Path) -> Path:
    """Where the run of an artifact lies while there is something to go on with."""
    return destination.absolute().parent / ".vivace" / destination.name


def read_journal(path: Path) -> Iterator[JsonRecord]:
    """The whole records of a journal, up to the first line that is torn or damaged; none where there is no file."""
    return (record for _, record in _whole_lines(path))


def _whole_lines(path: Path) -> Iterator[tuple[int, JsonRecord]]:
    """The bytes and the record of each line."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        while line := file.readline(strict_json.MOST_BYTES):
            record = _record(line)
            if record is None:
                return
            yield len(line), record


def _record(line: bytes) -> JsonRecord | None:
    """What a line holds; None for one that no journal wrote."""
    checksum, _, body = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(body):
        return None
    try:
        record = strict_json.loads(body.decode("utf-8"))
    except ValueError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("kind"), str) else None


def _line(record: JsonRecord) -> bytes:
    body = json.dumps(record, sort_keys=True, allow_nan=False).encode()  # what the reader would refuse is not written
    return b"%08x %s\n" % (zlib.crc32(body), body)
