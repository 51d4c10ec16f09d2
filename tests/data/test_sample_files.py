"""Tables on disk: whole or not there, found again, bounded, and no danger when the disk is full."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vivace.core.errors import DiskFull, NotApplicable
from vivace.data.sample_files import SampleFiles
from vivace.data.sample_table import SampleTable, Shape

KEY = "a" * 32
SAMPLES = 6
SHAPE = Shape((torch.zeros(1, 2, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64)))
SIZE = SAMPLES * SHAPE.sample_bytes


def pixels(columns: list[torch.Tensor]) -> None:
    columns[0].copy_(torch.arange(12).reshape(6, 2))
    columns[1].copy_(torch.arange(6))


def keep(files: SampleFiles, key: str = KEY, fill: Callable[[list[torch.Tensor]], Any] = pixels) -> SampleTable:
    return files.keep(key, SHAPE, range(SAMPLES), SAMPLES, fill)


def test_a_table_is_found_again_with_its_values_and_types(tmp_path: Path) -> None:
    keep(SampleFiles(tmp_path, 10**9))

    found = SampleFiles(tmp_path, 10**9).kept(KEY, SHAPE, range(SAMPLES), SAMPLES)

    assert found is not None
    images, labels = found.batch(torch.tensor([4, 1]))
    assert (images.tolist(), images.dtype, labels.tolist()) == ([[8, 9], [2, 3]], torch.uint8, [4, 1])


def test_what_is_there_is_not_written_again(tmp_path: Path) -> None:
    keep(SampleFiles(tmp_path, 10**9))

    found = keep(SampleFiles(tmp_path, 10**9), fill=lambda columns: pytest.fail("it was there"))

    assert found.columns[1].tolist() == [0, 1, 2, 3, 4, 5]


def test_writing_into_a_table_changes_nothing_on_the_disk(tmp_path: Path) -> None:
    files = SampleFiles(tmp_path, 10**9)
    keep(files).columns[1].zero_()

    found = files.kept(KEY, SHAPE, range(SAMPLES), SAMPLES)

    assert found is not None and found.columns[1].tolist() == [0, 1, 2, 3, 4, 5]


def test_nothing_is_left_of_a_table_that_could_not_be_filled(tmp_path: Path) -> None:
    def fail(columns: list[torch.Tensor]) -> None:
        pixels(columns)
        raise NotApplicable("samples differ")

    with pytest.raises(NotApplicable):
        keep(SampleFiles(tmp_path, 10**9), fill=fail)

    assert [path.name for path in tmp_path.iterdir()] == [f"{KEY}.lock"]


KILLED = """
import os, signal, sys
sys.path[:0] = [{tests!r}, {here!r}]
from pathlib import Path
import test_sample_files as t
def fill(columns):
    t.pixels(columns)
    os.kill(os.getpid(), signal.SIGKILL)
t.keep(t.SampleFiles(Path({folder!r}), 10**9), fill=fill)
"""


def test_a_process_that_is_killed_while_it_writes_leaves_nothing_that_is_read(tmp_path: Path) -> None:
    here = Path(__file__).parent
    script = KILLED.format(tests=str(here.parent), here=str(here), folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=100)
    files = SampleFiles(tmp_path, 10**9)

    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / f"{KEY}.part").is_dir()
    assert files.kept(KEY, SHAPE, range(SAMPLES), SAMPLES) is None
    files.shrink()
    assert not (tmp_path / f"{KEY}.part").exists()
    assert keep(files).columns[1].tolist() == [0, 1, 2, 3, 4, 5]


def test_the_table_that_was_not_used_for_longest_makes_room(tmp_path: Path) -> None:
    old, older, oldest, new = ("b" * 32, "c" * 32, "d" * 32, "e" * 32)
    for age, key in enumerate((old, older, oldest)):
        keep(SampleFiles(tmp_path, 10**9), key)
        os.utime(tmp_path / key / "index.json", (1000 - age, 1000 - age))
    size = sum(file.stat().st_size for file in (tmp_path / old).iterdir())
    files = SampleFiles(tmp_path, 2 * size + SIZE)
    files.kept(oldest, SHAPE, range(SAMPLES), SAMPLES)  # used now

    keep(files, new)

    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {old, oldest, new}


def test_folders_of_somebody_elses_are_never_removed(tmp_path: Path) -> None:
    for name in ("train", "half.part"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.json").write_text("{}")
        (tmp_path / name / "shard.0").write_bytes(b"x" * 1000)

    keep(SampleFiles(tmp_path, SIZE))

    assert (tmp_path / "train" / "shard.0").is_file()
    assert (tmp_path / "half.part" / "shard.0").is_file()


def test_links_are_not_followed_to_be_written_or_removed(tmp_path: Path) -> None:
    own, cache = tmp_path / "own", tmp_path / "cache"
    own.mkdir()
    cache.mkdir()
    (own / "letter").write_text("mine")
    (cache / f"{KEY}.part").symlink_to(own)
    keep(SampleFiles(cache, 10**9))
    (cache / f"{'b' * 32}.lock").symlink_to(own / "letter")

    with pytest.raises(OSError, match="symbolic links"):
        keep(SampleFiles(cache, 10**9), "b" * 32)

    assert (own / "letter").read_text() == "mine"


def test_a_folder_that_can_only_be_read_still_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(SampleFiles(tmp_path, 10**9))

    def refuse(*arguments: Any) -> None:
        raise PermissionError("read-only file system")

    monkeypatch.setattr(os, "utime", refuse)

    assert SampleFiles(tmp_path, 10**9).kept(KEY, SHAPE, range(SAMPLES), SAMPLES) is not None


def damage_size(home: Path) -> None:
    with (home / "0").open("ab") as file:
        file.truncate(5)


def damage_index(home: Path) -> None:
    note = json.loads((home / "index.json").read_text())
    (home / "index.json").write_text(json.dumps({**note, "rows": 10**9}))


def damage_text(home: Path) -> None:
    (home / "index.json").write_text("{")


def replace_index_by_a_pipe(home: Path) -> None:
    (home / "index.json").unlink()
    os.mkfifo(home / "index.json")


def lose_a_column(home: Path) -> None:
    (home / "1").unlink()


def damage_one_value(home: Path) -> None:
    with (home / "1").open("r+b") as file:
        file.seek(17)
        file.write(b"\x01")


def lose_the_sum(home: Path) -> None:
    note = json.loads((home / "index.json").read_text())
    (home / "index.json").write_text(json.dumps({key: value for key, value in note.items() if key != "sum"}))


DAMAGES = [
    damage_size, damage_index, damage_text, replace_index_by_a_pipe, lose_a_column, damage_one_value, lose_the_sum,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_table_that_is_not_as_it_was_written_is_made_anew(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    files = SampleFiles(tmp_path, 10**9)
    keep(files)
    damage(tmp_path / KEY)

    assert files.kept(KEY, SHAPE, range(SAMPLES), SAMPLES) is None
    assert keep(files).columns[1].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_table_of_another_shape_is_not_taken_for_it(tmp_path: Path) -> None:
    files = SampleFiles(tmp_path, 10**9)
    keep(files)
    other = Shape((torch.zeros(1, 2, dtype=torch.int8), torch.zeros(1, dtype=torch.int64)))

    assert files.kept(KEY, other, range(SAMPLES), SAMPLES) is None


def test_a_disk_without_room_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 10**9, 10))

    with pytest.raises(DiskFull, match="make room, or give another folder"):
        keep(SampleFiles(tmp_path, 10**9))


def test_a_file_that_the_system_refuses_is_an_error_and_no_signal(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, limits[1]))
    try:
        with pytest.raises(DiskFull, match="is full"):
            keep(SampleFiles(tmp_path, 10**9))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert not list(tmp_path.glob("*.part"))
