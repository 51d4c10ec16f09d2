"""Several processes prove a step again while they train: what goes wrong late, in one of them too, is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from together import PAIRED_FROM, Untied, ranks, wide_job, written_job
from together import paired_later as later_loss

import vivace as vv
from vivace.core.errors import UsageError
from vivace.core.plan import Plan
from vivace.core.quality import QualityVerdict
from vivace.core.technique import Technique
from vivace.report.pages import page_of
from vivace.report.reading import read_run
from vivace.techniques.memory.fused_optimizer import FusedOptimizer
from vivace.testing import planted_training as planted
from vivace.testing.tiny_training import image_job, job, momentum

pytestmark = pytest.mark.timeout(280)
HELD, NOT_HELD = QualityVerdict.HELD, QualityVerdict.NOT_HELD


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time for every proof."""
    monkeypatch.setattr("vivace.api.running.proofs.SHARE", 1e9)


@pytest.fixture
def at_the_end_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No checkpoint before the end, however quickly it were written, or long ago the last."""
    monkeypatch.setattr("vivace.api.running.drive.SAVING_SHARE", -1.0)
    monkeypatch.setattr("vivace.api.running.drive.CHECKPOINT_SECONDS", 1e9)


@pytest.fixture
def checkpoints_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vivace.api.running.drive.CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("vivace.api.running.drive.PATIENCE_SECONDS", 1e-6)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.slow
@pytest.mark.usefixtures("unhurried", "at_the_end_alone")
@pytest.mark.parametrize(
    ("late", "told"),
    [
        (planted.LateDetachment(layer="0"), "gradient of 0."),
        (planted.LateStray(name_of_parameter="3.weight"), "copy of 3.weight on rank 1 in step 42: it is "),
    ],
    ids=["detached", "stray"],
)
def test_what_goes_wrong_late_in_two_processes_is_taken_out_and_told(
    late: Technique, told: str, tmp_path: Path
) -> None:
    found = vv.train(job(epochs=6), plan=Plan((late,)), processes=2, out=tmp_path / "run")

    assert str(found.plan) == "data-parallel"
    assert [one.verdict for one in found.proofs] == [NOT_HELD, HELD]
    assert told in found.proofs[0].reason
    assert f"{late} was taken out, and it was trained with data-parallel from the beginning" in found.dropped[0]
    alone = vv.train(job(epochs=6), plan=(), out=tmp_path / "one")
    assert found.losses == pytest.approx(alone.losses, rel=2e-4)
    assert "was not the original" in page_of(read_run(tmp_path / "run"))
    assert ranks() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "kept", "out"),
    [
        ((planted.DetachedBranch(layer="0"), FusedOptimizer()), "fused-optimizer + data-parallel", "detached-branch"),
        ((planted.DetachedBranch(layer="0"), planted.ShortStep()), "data-parallel", " and "),
    ],
    ids=["one", "two"],
)
def test_what_is_wrong_in_the_first_steps_of_two_processes_is_left_out_and_told(
    asked: Any, kept: str, out: str, tmp_path: Path
) -> None:
    found = vv.train(job(epochs=1), plan=Plan.of(asked), processes=2, out=tmp_path / "run")

    assert str(found.plan) == kept
    assert found.parity.verdict is HELD
    (told,) = found.dropped
    assert out in told.partition(" trains differently and was left out: ")[0]
    assert ranks() == []


@pytest.mark.slow
@pytest.mark.usefixtures("unhurried", "checkpoints_often")
def test_a_job_that_several_processes_train_otherwise_from_some_step_on_stops_them_and_goes_on_in_one(
    tmp_path: Path,
) -> None:
    work = job(loss=later_loss, epochs=6, evaluate=None)

    with pytest.raises(UsageError) as stopped:
        vv.train(work, plan=(), processes=2, out=tmp_path / "run")

    told = str(stopped.value)
    assert "were taken with a step that was not the original's (gradient of " in told
    kept = int(told.partition("what was trained in ")[2].partition(" steps")[0])
    assert 0 < kept <= PAIRED_FROM
    assert f"is kept in {tmp_path / 'run'}: go on in one process" in told and "--processes 1 --resume" in told
    assert ranks() == []
    run = vv.train(work, processes=1, resume=True, out=tmp_path / "run")
    assert (run.resumed_steps, run.steps) == (kept, 42)
    assert run.dropped[0].endswith(f"2 processes with data-parallel were stopped there, at step {kept} again")
    assert [one.verdict for one in run.proofs][-1] is NOT_HELD


@pytest.mark.slow
@pytest.mark.usefixtures("at_the_end_alone")
def test_copies_that_come_apart_are_told_where_no_proof_can_be_afforded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vivace.api.running.proofs.SHARE", 1e-9)
    stray = planted.LateStray(name_of_parameter="0.bias")

    found = vv.train(job(epochs=6), plan=Plan((stray,)), processes=2, out=tmp_path)

    assert [one.verdict for one in found.proofs] == [NOT_HELD]
    assert "copy of 0.bias on rank 1" in found.proofs[0].reason
    assert found.unproved.startswith("steps 1 to 42 were not proved again: a proof takes about ")


LAYOUTS: dict[str, Any] = {
    "data=2": lambda: image_job(epochs=2, optimizer=momentum),
    "shard=2": lambda: job(epochs=2),
    "tensor=2": lambda: wide_job(),
    "pipeline=2": lambda: written_job(),
    "data=2,shard=2": lambda: wide_job(),
    "shard=2,pipeline=2": lambda: written_job(model=Untied),
    "data=2,tensor=2": lambda: wide_job(),
}


@pytest.mark.slow
@pytest.mark.usefixtures("checkpoints_often")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_proofs_hold_in_every_layout_and_leave_the_run_as_it_was(
    layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, processes = LAYOUTS[layout](), 2 ** layout.count("=2")
    monkeypatch.setattr("vivace.api.running.proofs.SHARE", 1e9)
    proved = vv.train(work, plan=(), processes=processes, layout=layout, out=tmp_path / "proved")
    monkeypatch.setattr("vivace.api.running.proofs.SHARE", 1e-9)
    plain = vv.train(work, plan=(), processes=processes, layout=layout, out=tmp_path / "plain")

    assert len(proved.proofs) > 3 and {one.verdict for one in proved.proofs} == {HELD}
    assert proved.unproved == "" and plain.proofs == ()
    assert proved.losses == plain.losses
    one, other = weights(tmp_path / "proved"), weights(tmp_path / "plain")
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.slow
@pytest.mark.usefixtures("unhurried", "at_the_end_alone")
@pytest.mark.parametrize(("layout", "layer"), [("shard=2", "0"), ("tensor=2", "2.up"), ("pipeline=2", "4")])
def test_a_layer_that_is_detached_late_is_found_in_every_layout(layout: str, layer: str, tmp_path: Path) -> None:
    late = planted.LateDetachment(layer=layer, after=100 if layout == "pipeline=2" else 20)  # calls of micro-batches

    found = vv.train(wide_job(epochs=6), plan=Plan((late,)), processes=2, layout=layout, out=tmp_path)

    assert [one.verdict for one in found.proofs] == [NOT_HELD, HELD]
    assert found.proofs[0].reason.startswith("gradient of ")
    assert f"{late} was taken out" in found.dropped[0]
