"""Big tensors and arrays are written once for all children, mapped by each, and are the same numbers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vivace.measure import parcel

LARGE = parcel.SHELVED_BYTES // 4


def parcelled(value: Any) -> tuple[Any, int]:
    """What a child receives, and how many bytes came through the pipe."""
    reading, writing = os.pipe()
    chunks: list[bytes] = []
    parcel.send(value, lambda data: chunks.append(bytes(data)))
    sent = b"".join(chunks)
    assert len(sent) < 60_000, "more than a pipe holds"
    os.write(writing, sent)
    os.close(writing)
    received = parcel.receive(reading)
    os.close(reading)
    return received, len(sent)


def test_numbers_arrive_by_a_file_that_is_written_once() -> None:
    tensor, array = torch.randn(LARGE), np.arange(LARGE * 2.0).reshape(2, -1)
    with parcel.shelved():
        (one, tied, other), size = parcelled((tensor, tensor[:5], array))
        (again, _, _), _ = parcelled((tensor, tensor[:5], array))
        shelf = parcel._SHELF.get()
        assert shelf is not None and len(shelf._files) == 2
        named = list(shelf.folder.iterdir())

    assert size < 5000
    assert named == [] or not parcel.DESCRIPTORS.is_dir()
    assert torch.equal(one, tensor) and torch.equal(again, tensor)
    assert np.array_equal(other, array) and type(other) is np.ndarray
    assert tied.untyped_storage().data_ptr() == one.untyped_storage().data_ptr()


def test_a_system_without_descriptors_in_files_has_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(parcel, "DESCRIPTORS", tmp_path / "none")
    tensor = torch.randn(LARGE)
    with parcel.shelved():
        received, _ = parcelled(tensor)
        named = list(parcel._SHELF.get().folder.iterdir())  # type: ignore[union-attr]

    assert torch.equal(received, tensor)
    assert [file.name for file in named] == ["0.bin"] and not named[0].exists()


KILLED = """
import os, signal, torch
from vivace.measure import parcel
with parcel.shelved():
    parcel.send(torch.zeros(parcel.SHELVED_BYTES), lambda data: None)
    print(parcel._SHELF.get().folder, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not parcel.DESCRIPTORS.is_dir(), reason="files have names here")
def test_a_process_that_is_killed_leaves_no_numbers_behind() -> None:
    done = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, check=False)
    folder = Path(done.stdout.strip())

    assert done.returncode == -9
    assert folder.is_dir() and list(folder.iterdir()) == []
    folder.rmdir()


def test_what_a_child_writes_stays_its_own() -> None:
    tensor = torch.zeros(LARGE)
    with parcel.shelved():
        one, _ = parcelled(tensor)
        one.add_(1)
        other, _ = parcelled(tensor)

    assert float(tensor.sum()) == float(other.sum()) == 0


def test_a_shelf_without_room_sends_by_the_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parcel.Shelf, "_written", full)
    monkeypatch.setattr(parcel, "SHELVED_BYTES", 1000)
    tensor = torch.randn(1000)
    with parcel.shelved():
        received, size = parcelled(tensor)

    assert torch.equal(received, tensor)
    assert size > 4000


def test_an_inner_shelf_is_the_outer_one() -> None:
    with parcel.shelved():
        outer = parcel._SHELF.get()
        with parcel.shelved():
            assert parcel._SHELF.get() is outer
        assert outer is not None and outer.folder.is_dir()
    assert parcel._SHELF.get() is None
    assert not outer.folder.exists()
