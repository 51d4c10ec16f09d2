"""Several processes train as one: the same batches, losses and weights, whatever the layout, and whoever dies."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from together import (
    UNEVEN,
    Averaged,
    Frozen,
    Hanging,
    Killing,
    Refusing,
    Shaking,
    Untied,
    Written,
    adagrad,
    contrastive,
    in_float64,
    kept,
    loss_in_float64,
    padded_job,
    ranks,
    recurrent_job,
    spelling,
    uneven_job,
    weighted_loss,
    wide_job,
    written_job,
)
from torch.utils.data import DataLoader

import vivace as vv
from interrupting import Interrupting
from vivace.api import diagnose
from vivace.core.errors import UsageError, WorkerFailure
from vivace.core.quality import QualityVerdict
from vivace.core.training.parity import Kind
from vivace.distributed.team import Team
from vivace.testing.tiny_training import Points, convolutional, image_job, job, momentum, shifted

pytestmark = pytest.mark.timeout(280)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def check_same_as_one(work: Any, folder: Path, **asked: Any) -> Any:
    """Train on several processes and on one, and compare the proof, the losses and the weights."""
    run = vv.train(work, plan=(), out=folder / "many", **asked)
    alone = vv.train(work, plan=(), out=folder / "one")

    assert run.parity is not None
    assert run.parity.verdict is QualityVerdict.HELD, run.parity.reason
    assert run.steps == alone.steps
    assert run.losses == pytest.approx(alone.losses, rel=2e-4)
    one, many = weights(folder / "one"), weights(folder / "many")
    assert one.keys() == many.keys()
    for name, value in one.items():
        torch.testing.assert_close(many[name], value, rtol=2e-3, atol=2e-4)
    assert ranks() == []
    return run


def test_two_processes_train_as_one_with_the_same_dropout_and_an_uneven_last_batch(tmp_path: Path) -> None:
    run = check_same_as_one(job(epochs=2), tmp_path, processes=2)

    assert str(run.plan) == "data-parallel"
    assert not any("dropout is off" in note for note in run.parity.notes)
    assert {one.kind for one in run.parity.agreements} >= {Kind.BATCH, Kind.GRADIENT, Kind.UPDATE}
    alone, together = run.diagnosis, run.diagnosis_after
    assert alone.communication_seconds == 0 < together.communication_seconds < together.step_seconds
    assert together.whole_seconds > 0 and together.parameter_bytes == alone.parameter_bytes
    assert "(of which processes exchange)" in (tmp_path / "many" / "report.html").read_text()


def test_a_diagnosis_of_several_processes_tells_what_they_exchange() -> None:
    found = diagnose(wide_job(), team=Team(processes=2))

    assert 0 < found.communication_seconds < found.step_seconds
    assert any(note.startswith("a step of one process takes") for note in found.notes)
    with pytest.raises(UsageError, match="of the processes of one machine"):
        diagnose(wide_job(), team=Team(processes=2, nodes=2))
    assert ranks() == []


JOBS = {
    "batch norm": lambda: image_job(epochs=2, optimizer=momentum),
    "weights": lambda: job(loss=weighted_loss, weight=kept, epochs=2),
    "recurrent": recurrent_job,
    "padding": padded_job,
    "filled up": uneven_job,
    "augmented": lambda: image_job(augment=shifted, epochs=2, optimizer=momentum),
    "own generator": lambda: job(augment=Shaking(), epochs=2),
    "loader": lambda: job(
        data=DataLoader(Points(), batch_size=16, shuffle=True), batch_size=None, epochs=2,
        schedule=lambda o: torch.optim.lr_scheduler.StepLR(o, 5, 0.5), advance="step",
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
def test_copies_train_as_one_process_whatever_the_job(name: str, tmp_path: Path) -> None:
    check_same_as_one(JOBS[name](), tmp_path, processes=2)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["shard=2", "pipeline=2"])
def test_a_part_of_a_batch_in_which_nothing_counts_adds_nothing(layout: str, tmp_path: Path) -> None:
    check_same_as_one(padded_job(), tmp_path, processes=2, layout=layout)


@pytest.mark.slow
def test_losses_that_are_not_in_float32_come_to_all_stages(tmp_path: Path) -> None:
    work = job(model=in_float64, loss=loss_in_float64, evaluate=None, epochs=1)

    check_same_as_one(work, tmp_path, processes=2, layout="pipeline=2")


@pytest.mark.slow
def test_batches_of_different_lengths_pass_through_stages(tmp_path: Path) -> None:
    check_same_as_one(uneven_job(model=spelling), tmp_path, processes=2, layout="pipeline=2,micro=2")


@pytest.mark.slow
def test_more_processes_than_the_last_batch_has_samples_train_as_one(tmp_path: Path) -> None:
    check_same_as_one(job(data=Points(50), batch_size=12, epochs=2), tmp_path, processes=3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "plan"),
    [
        ("shard=2", "fully-sharded"),
        ("tensor=2", "tensor-parallel"),
        ("pipeline=2", "pipeline-parallel"),
        ("pipeline=2,micro=2,schedule=gpipe", "pipeline-parallel(micro=2, schedule=gpipe)"),
    ],
)
def test_a_layout_of_two_processes_trains_as_one(layout: str, plan: str, tmp_path: Path) -> None:
    run = check_same_as_one(wide_job(), tmp_path, processes=2, layout=layout)

    assert str(run.plan) == plan


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "layout"),
    [(2, "pipeline=2"), (2, "pipeline=2,micro=2,schedule=gpipe"), (4, "data=2,pipeline=2"), (4, "shard=2,pipeline=2")],
)
def test_a_network_as_people_write_it_trains_in_stages_with_the_masks_of_one_process(
    processes: int, layout: str, tmp_path: Path
) -> None:
    work = written_job(model=Untied if "shard" in layout else Written)

    run = check_same_as_one(work, tmp_path, processes=processes, layout=layout)

    assert not any("dropout is off" in note for note in run.parity.notes)
    assert any("stages begin with before drop, " in note for note in run.parity.notes)


@pytest.mark.slow
@pytest.mark.parametrize(
    "layout",
    ["data=2,pipeline=2", "shard=2,tensor=2", "data=2,shard=2", "data=2,tensor=2", "tensor=2,pipeline=2",
     "shard=2,pipeline=2"],
)  # fmt: skip
def test_a_composition_of_four_processes_trains_as_one(layout: str, tmp_path: Path) -> None:
    check_same_as_one(wide_job(epochs=1), tmp_path, processes=4, layout=layout)


@pytest.mark.slow
@pytest.mark.parametrize(
    "layout",
    [
        "data=2,tensor=2,pipeline=2",
        "shard=2,tensor=2,pipeline=2",
        "data=2,shard=2,tensor=2",
        "data=2,shard=2,pipeline=2",
    ],
)
def test_eight_processes_on_three_axes_train_as_one(layout: str, tmp_path: Path) -> None:
    check_same_as_one(wide_job(epochs=1), tmp_path, processes=8, layout=layout)


@pytest.mark.slow
def test_sharded_dropout_draws_the_masks_of_one_process(tmp_path: Path) -> None:
    run = check_same_as_one(job(epochs=2), tmp_path, processes=2, layout="shard=2")

    assert not any("dropout is off" in note for note in run.parity.notes)


@pytest.mark.slow
def test_frozen_batch_normalization_is_the_same_in_stages(tmp_path: Path) -> None:
    check_same_as_one(job(model=Frozen, epochs=2), tmp_path, processes=2, layout="pipeline=2")


BATCH_NORM: dict[str, Any] = {"model": convolutional, "data": Points(64, (3, 6, 6)), "evaluate": None}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "asked", "told"),
    [
        ({"loss": contrastive}, {}, "on several processes this job trains differently than on one: gradient of"),
        ({"data": Refusing()}, {}, "rank 1: ValueError: the file of this sample is damaged"),
        ({}, {"layout": "tensor=2"}, "the layout tensor=2 is not possible: tensor-parallel: no two linear layers"),
        (BATCH_NORM, {"layout": "pipeline=2"}, "1 normalizes over the batch"),
        (
            {"model": Untied, **UNEVEN},
            {"layout": "pipeline=2,micro=2"},
            "a batch has rows of shape .* for which other masks are drawn; make all rows as long, or leave dropout out",
        ),
        (
            {"model": Averaged},
            {"layout": "pipeline=2"},
            "the model gives something else than its last module, last, gave",
        ),
    ],
    ids=["contrastive", "one rank", "no pair", "batch norm", "uneven rows", "no chain"],
)
def test_what_several_processes_cannot_train_is_told(changes: Any, asked: Any, told: str, tmp_path: Path) -> None:
    with pytest.raises((UsageError, WorkerFailure), match=told):
        vv.train(job(**changes), processes=2, plan=(), out=tmp_path / "run", **asked)
    assert ranks() == []


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"processes": 0}, "processes is 0; allowed is a whole number of 1 or more"),
        ({"processes": 3, "layout": "tensor=2"}, "do not divide 3"),
        ({"processes": 2, "plan": ["captured-step"]}, "captured-step needs a training in one process"),
        (
            {"processes": 2, "layout": "pipeline=2", "plan": ["recorded-step"]},
            "recorded-step needs a model all of whose layers are on each process, which pipeline-parallel took away",
        ),
        (
            {"processes": 2, "layout": "tensor=2", "plan": ["fused-optimizer"]},
            "tensor-parallel needs an optimizer whose kernels were not chosen yet, which fused-optimizer took away",
        ),
    ],
)
def test_a_team_that_cannot_be_is_told_before_anything_starts(asked: Any, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        vv.train(job(), **asked)


@pytest.fixture
def checkpoints_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vivace.api.running.drive.CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("vivace.api.running.drive.PATIENCE_SECONDS", 1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("checkpoints_often")
def test_a_rank_that_is_killed_has_all_go_on_from_the_last_checkpoint(tmp_path: Path) -> None:
    whole = vv.train(job(), processes=2, plan=(), out=tmp_path / "whole")
    run = vv.train(job(), processes=2, plan=(), out=tmp_path / "run", progress=Killing("step 10:"))

    assert run.restarts[0].startswith("rank 1 was killed by SIGKILL")
    assert run.restarts[0] in (tmp_path / "run" / "report.html").read_text()
    assert [one.rank for one in run.ranks] == [0, 1]
    assert run.losses == whole.losses
    assert len(run.course.spans) == run.steps
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "run")
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert ranks() == []


@pytest.mark.slow
@pytest.mark.usefixtures("checkpoints_often")
@pytest.mark.parametrize(
    ("processes", "layout", "left"),
    [(2, "", "1 process goes"), (2, "shard=2", "1 process goes"), (3, "shard=3", "2 processes go"),
     (2, "tensor=2", "1 process goes"), (2, "pipeline=2", "1 process goes")],
)  # fmt: skip
def test_where_no_restart_is_left_fewer_processes_go_on(processes: int, layout: str, left: str, tmp_path: Path) -> None:
    killing, team = Killing("step 10:"), Team(processes=processes, layout=layout, restarts=0)

    run = vv.train(wide_job(epochs=3), plan=(), team=team, out=tmp_path / "run", progress=killing)
    alone = vv.train(wide_job(epochs=3), plan=(), out=tmp_path / "one")

    assert "no restart was left" in run.restarts[0]
    assert f"{left} on from step " in run.restarts[0]
    assert len(run.ranks) == processes - 1
    assert run.steps == alone.steps
    assert run.losses == pytest.approx(alone.losses, rel=2e-4)
    one, other = weights(tmp_path / "one"), weights(tmp_path / "run")
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=2e-3, atol=2e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("checkpoints_often")
def test_a_rank_that_hangs_is_named_and_started_again(tmp_path: Path) -> None:
    work = job(data=Hanging(tmp_path / "flag"))

    run = vv.train(work, plan=(), team=Team(processes=2, deadline=5.0), out=tmp_path / "run")

    assert "rank 1 is in the reading of a batch and did not come to" in run.restarts[0]
    assert "where rank 0 waits; the deadline is 5 s" in run.restarts[0]
    assert run.steps == 21


@pytest.mark.slow
def test_a_rank_that_hangs_ends_a_training_without_restarts(tmp_path: Path) -> None:
    work = job(data=Hanging(tmp_path / "flag", always=True))

    with pytest.raises(WorkerFailure, match=r"rank 1 is in .* did not come to the all-reduce of .*, where rank 0"):
        vv.train(work, plan=(), team=Team(processes=2, deadline=4.0, restarts=0), out=tmp_path / "run")
    assert ranks() == []


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["shard=2", "tensor=2", "pipeline=2"])
def test_a_rank_that_hangs_is_named_with_the_operation_in_every_layout(layout: str, tmp_path: Path) -> None:
    work = wide_job(data=Hanging(tmp_path / "flag", always=True), epochs=3)
    team = Team(processes=2, deadline=4.0, restarts=0, layout=layout)

    with pytest.raises(
        WorkerFailure, match=r"rank 1 is in .* and did not come to .*, where rank 0 waits; the deadline"
    ):
        vv.train(work, team=team, out=tmp_path / "run")
    assert ranks() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "then"),
    [({"processes": 2}, {"processes": 1}), ({"processes": 1}, {"processes": 2, "layout": "shard=2"})],
    ids=["fewer", "sharded"],
)
def test_a_training_goes_on_with_another_number_of_processes(first: Any, then: Any, tmp_path: Path) -> None:
    alone = vv.train(job(), plan=(), out=tmp_path / "one")
    with pytest.raises(KeyboardInterrupt):
        vv.train(job(), out=tmp_path / "run", plan=(), progress=Interrupting(), **first)
    assert ranks() == []

    run = vv.train(job(), out=tmp_path / "run", plan=(), resume=True, **then)

    assert 0 < run.resumed_steps < run.steps == alone.steps
    one, other = weights(tmp_path / "one"), weights(tmp_path / "run")
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=2e-3, atol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["data=2", "shard=2", "tensor=2"])
def test_a_training_that_is_stopped_goes_on_exactly(layout: str, tmp_path: Path) -> None:
    work, asked = wide_job(augment=Shaking(), epochs=4), {"processes": 2, "layout": layout, "plan": ()}
    vv.train(work, out=tmp_path / "whole", **asked)
    with pytest.raises(KeyboardInterrupt):
        vv.train(work, out=tmp_path / "run", progress=Interrupting(), **asked)

    run = vv.train(work, out=tmp_path / "run", resume=True, **asked)

    assert 0 < run.resumed_steps < run.steps
    whole, stopped = weights(tmp_path / "whole"), weights(tmp_path / "run")
    assert all(torch.equal(stopped[name], value) for name, value in whole.items())


@pytest.mark.slow
def test_a_pipeline_that_is_stopped_twice_goes_on_with_what_every_stage_knows(tmp_path: Path) -> None:
    work, asked = wide_job(optimizer=adagrad, epochs=4), {"layout": "pipeline=2,micro=2", "plan": ()}
    alone = vv.train(work, plan=(), out=tmp_path / "one")
    for resume in (False, True):
        with pytest.raises(KeyboardInterrupt):
            vv.train(work, processes=2, out=tmp_path / "run", progress=Interrupting(), resume=resume, **asked)

    run = vv.train(work, processes=2, out=tmp_path / "run", resume=True, **asked)

    assert 0 < run.resumed_steps < run.steps == alone.steps
    one, other = weights(tmp_path / "one"), weights(tmp_path / "run")
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=2e-3, atol=2e-4)


MACHINE = """
import sys
import vivace as vv
from vivace.distributed.team import Team
from vivace.testing.tiny_training import job

if __name__ == "__main__":
    team = Team(nodes=2, least_nodes=2, node_rank=1, port=int(sys.argv[1]))
    vv.train(job(epochs=2), team=team, out=sys.argv[2])
"""


@pytest.mark.slow
def test_two_machines_that_meet_at_a_port_train_as_one(tmp_path: Path) -> None:
    (tmp_path / "machine.py").write_text(MACHINE)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, str(tmp_path / "machine.py"), str(port), str(tmp_path / "many")]
    other = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    run = check_same_as_one(job(epochs=2), tmp_path, team=Team(nodes=2, least_nodes=2, port=port))

    assert (other.communicate(timeout=60)[1], other.returncode) == ("", 0)
    assert str(run.plan) == "data-parallel"
