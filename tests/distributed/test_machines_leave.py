"""Machines leave a training and join it: the others go on, every sample once an epoch, and what happened is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from machines import Machine, free_port, target, write_job
from safetensors.torch import load_file

import vivace as vv
from vivace.api.target import resolve_training

pytestmark = [pytest.mark.slow, pytest.mark.timeout(580)]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Any]:
    port, launched = free_port(), []

    def launched_as(number: int, nodes: str, *options: str) -> Machine:
        launched.append(Machine(tmp_path, number, port, nodes, *options))
        return launched[-1]

    yield launched_as
    for machine in launched:
        machine.kill()


def check_same_as_one(folder: Path) -> dict[str, Any]:
    """What was trained is what one process trains; run.json."""
    run = json.loads((folder / "run" / "run.json").read_text())
    alone = vv.train(resolve_training(target(folder)), plan=(), out=folder / "one")
    assert run["steps"] == alone.steps
    assert run["losses"] == pytest.approx(alone.losses, rel=2e-4)
    one, many = (load_file(folder / name / "model.safetensors") for name in ("one", "run"))
    for name, value in one.items():
        torch.testing.assert_close(many[name], value, rtol=2e-3, atol=2e-4)
    return run


@pytest.mark.parametrize("layout", ["data=2", "shard=2", "tensor=2", "pipeline=2"])
def test_the_machine_that_is_left_goes_on_from_the_last_checkpoint(layout: str, tmp_path: Path, launch: Any) -> None:
    write_job(tmp_path, epochs=4)
    here, other = launch(0, "1:2", "--layout", layout), launch(1, "1:2", "--layout", layout)
    here.wait_for("epoch 2 of 4")

    other.kill()

    assert here.process.wait(timeout=300) == 0, here.text[-3000:]
    run = check_same_as_one(tmp_path)
    (told,) = run["restarts"]
    assert told.startswith("machine 1 (127.0.0.1) has left, after step ")
    assert "; 1 process goes on from step " in told
    assert told in (tmp_path / "run" / "report.html").read_text()
    assert len(run["ranks"]) == 1


def test_a_machine_that_comes_later_takes_part(tmp_path: Path, launch: Any) -> None:
    write_job(tmp_path, epochs=30)
    here = launch(0, "1:2")
    here.wait_for("epoch 2 of 30")

    launch(1, "1:2")

    assert here.process.wait(timeout=250) == 0, here.text[-3000:]
    run = check_same_as_one(tmp_path)
    assert run["restarts"][0].startswith("machine 1 (127.0.0.1) has joined, after step ")
    assert "; 2 processes go on from step " in run["restarts"][0]
    assert len(run["ranks"]) == 2


def test_a_machine_that_is_needed_and_leaves_is_told_with_what_to_do(tmp_path: Path, launch: Any) -> None:
    write_job(tmp_path, epochs=4)
    here, other = launch(0, "2"), launch(1, "2")
    here.wait_for("epoch 2 of 4")

    other.kill()

    assert here.process.wait(timeout=100) == 5
    assert "machine 1 (127.0.0.1) has left, and at least 2 are needed (--nodes)" in here.text
    assert "the last checkpoint is kept in" in here.text


def test_where_the_machine_they_meet_at_leaves_the_others_say_how_to_go_on(tmp_path: Path, launch: Any) -> None:
    write_job(tmp_path, epochs=4)
    first, here = launch(0, "1:2"), launch(1, "1:2")
    first.wait_for("epoch 2 of 4")

    first.kill()

    assert here.process.wait(timeout=100) == 5
    assert "machine 0, where the machines meet (127.0.0.1:" in here.text
    assert "has gone; to go on, start one of the machines as number 0 (--node-rank 0)" in here.text
    again = here.text.partition("go on with: vivace train")[2].partition("\n")[0]
    assert f"--out {tmp_path / 'run'} " in again and " --nodes 1:2 " in again and again.rstrip().endswith("--resume")
