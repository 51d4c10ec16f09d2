"""Ports that are taken, ranks that leave as if all were done: told at once, and nothing waits for ever."""

from __future__ import annotations

import importlib
import socket
from pathlib import Path
from typing import Any

import pytest
from together import Full, Leaving, Quitting, Stages, ranks

import vivace as vv
from vivace.core.errors import EnvironmentFault, WorkerFailure
from vivace.core.measurement import Outcome
from vivace.distributed.team import Team
from vivace.testing.tiny_training import job

pytestmark = pytest.mark.timeout(280)


def test_a_port_in_use_is_told_before_anything_is_timed(tmp_path: Path) -> None:
    stages = Stages()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EnvironmentFault, match=rf"the port {port} of 127.0.0.1 cannot be used: Address already"):
            vv.train(job(), team=Team(processes=2, port=port), out=tmp_path / "run", progress=stages)
    assert stages.told == []


class Tried(Exception):
    """What is tried begins here, with these ports."""


def test_teams_that_are_timed_in_turns_do_not_want_the_port_that_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chosen(choice: Any, found: Any, team: Team) -> Any:
        raise Tried(choice.team.port, team.port)

    monkeypatch.setattr(importlib.import_module("vivace.api.train"), "_chosen_together", chosen)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    with pytest.raises(Tried) as tried:
        vv.train(job(), team=Team(processes=2, layout="data=2", port=port), out=tmp_path / "run")

    assert tried.value.args == (0, port)


@pytest.mark.slow
def test_a_rank_that_ends_as_if_all_were_done_has_all_start_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vivace.api.running.drive.CHECKPOINT_SECONDS", 0.0)
    work = job(data=Quitting(tmp_path / "flag"))

    run = vv.train(work, plan=(), team=Team(processes=2, deadline=20.0), out=tmp_path / "run")

    assert run.restarts[0].startswith("rank 1 ended by itself, with exit code 0, before the others did, after step ")
    assert run.steps == 21


@pytest.mark.slow
def test_a_rank_whose_job_leaves_the_program_is_told(tmp_path: Path) -> None:
    with pytest.raises(WorkerFailure, match="rank 1: SystemExit: no licence for this data set"):
        vv.train(job(data=Leaving()), processes=2, plan=(), out=tmp_path / "run")
    assert ranks() == []


@pytest.mark.slow
def test_a_rank_without_memory_is_named_with_what_takes_less_and_its_checkpoint_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vivace.api.running.drive.CHECKPOINT_SECONDS", 0.0)

    with pytest.raises(WorkerFailure, match=r"rank 1: MemoryError; let each process hold less: .*shard=N") as told:
        vv.train(job(data=Full()), processes=2, plan=(), out=tmp_path / "run")

    assert told.value.outcome is Outcome.OOM
    assert list((tmp_path / "run" / "checkpoints").glob("step-*"))
    assert not list((tmp_path / "run").glob("model*"))
    assert ranks() == []
