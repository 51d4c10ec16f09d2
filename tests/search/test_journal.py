"""The journal survives kills, torn lines and a second writer."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from vivace.core.errors import DiskFull, EnvironmentFault
from vivace.search.journal import Journal, read_journal


def test_what_was_appended_is_read_back_in_order(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.append({"kind": "trial", "number": 1})
        journal.append({"kind": "trial", "number": 2})

    assert [record["number"] for record in read_journal(tmp_path / "journal.jsonl")] == [1, 2]


def test_a_torn_last_line_is_dropped_and_written_over(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.append({"kind": "trial", "number": 1})
    with path.open("ab") as file:
        file.write(b'0123abcd {"kind": "trial", "num')

    with Journal(path) as journal:
        journal.append({"kind": "trial", "number": 2})

    assert [record["number"] for record in read_journal(path)] == [1, 2]


def test_a_line_whose_checksum_is_wrong_ends_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.append({"kind": "trial", "number": 1})
        journal.append({"kind": "trial", "number": 2})
    path.write_bytes(path.read_bytes().replace(b'"number": 2', b'"number": 3'))

    assert [record["number"] for record in read_journal(path)] == [1]


def test_every_prefix_of_a_journal_can_be_opened(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.append({"kind": "header"})
        journal.append({"kind": "trial", "number": 1})
    whole = path.read_bytes()

    lengths = set()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with Journal(path) as journal:
            lengths.add(len(journal.records))

    assert lengths == {0, 1}


def test_a_second_writer_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.jsonl"), pytest.raises(EnvironmentFault, match="another search is writing"):
        Journal(tmp_path / "journal.jsonl")


def test_a_full_disk_is_told_and_nothing_known_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.append({"kind": "trial", "number": 1})

        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(DiskFull, match="--resume"):
            journal.append({"kind": "trial", "number": 2})

    assert next(read_journal(path))["number"] == 1
