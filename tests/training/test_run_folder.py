"""The folder of a training: refused before any work where it cannot serve, and what it says of epochs after a kill."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

import vivace as vv
from vivace.api.running import drive, folder
from vivace.core.errors import DiskFull, EnvironmentFault, UsageError
from vivace.testing.tiny_training import job


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def worked(*_: Any) -> None:
        raise AssertionError("it was diagnosed")

    monkeypatch.setattr(importlib.import_module("vivace.api.train"), "diagnose", worked)


@pytest.mark.usefixtures("no_work")
def test_a_file_in_place_of_the_folder_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")

    with pytest.raises(UsageError, match=r"which is a file; allowed is a folder"):
        vv.train(job(), out=tmp_path / "run")
    with pytest.raises(UsageError, match=r"run is a file, so no folder can be made below it; give another path"):
        vv.train(job(), out=tmp_path / "run" / "below")
    assert (tmp_path / "run").read_text() == "mine"


@pytest.mark.usefixtures("no_work")
def test_a_folder_that_nobody_may_write_to_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write anywhere

    with pytest.raises(EnvironmentFault, match=r"cannot write to .*; give an out .* in a folder that you own"):
        vv.train(job(), out=tmp_path / "some" / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_work")
def test_a_folder_with_another_run_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "step-000000003").mkdir(parents=True)

    with pytest.raises(UsageError, match=r"holds checkpoints of a training; go on with it"):
        vv.train(job(), out=tmp_path)


@pytest.mark.usefixtures("no_work")
def test_two_runs_at_once_are_not_kept_in_one_folder(tmp_path: Path) -> None:
    with folder.alone_in(tmp_path), pytest.raises(UsageError, match=r"another run is training into .* now"):
        vv.train(job(), out=tmp_path)


@pytest.mark.slow
def test_a_kill_beside_a_checkpoint_loses_no_epoch_of_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, calls = drive.write_accounts, [0]

    def dying(*arguments: Any) -> None:
        calls[0] += 1
        if calls[0] == 3:
            raise RuntimeError("killed")
        written(*arguments)

    monkeypatch.setattr(drive, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(drive, "write_accounts", dying)
    with pytest.raises(RuntimeError, match=r"killed"):
        vv.train(job(), plan=(), out=tmp_path)

    run = vv.train(job(), plan=(), out=tmp_path, resume=True)

    assert run.resumed_steps > 0 and len(run.losses) == len(run.scores) == 3
    assert run.course.spans[0].step == 1


@pytest.mark.slow
def test_a_disk_that_is_full_at_the_first_checkpoint_promises_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(drive, "write_accounts", full)
    with pytest.raises(DiskFull, match=r"there is no checkpoint yet: make room, or give another out"):
        vv.train(job(), plan=(), out=tmp_path)
