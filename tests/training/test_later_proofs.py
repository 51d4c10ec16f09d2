"""A step is proved again while the training runs: what goes wrong late is found, taken out alone, and told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import vivace as vv
from vivace.core.plan import Plan
from vivace.core.quality import QualityVerdict
from vivace.core.technique import Technique
from vivace.core.training.job import Training
from vivace.report.pages import page_of
from vivace.report.reading import read_run, read_training
from vivace.report.training import headline
from vivace.techniques.compile.recorded_step import RecordedStep
from vivace.techniques.feed.sample_cache import SampleCache
from vivace.techniques.memory.fused_optimizer import FusedOptimizer
from vivace.techniques.precision.bfloat16 import Bfloat16
from vivace.testing import planted_training as planted
from vivace.testing.tiny_training import Points, image_job, job, loss, momentum
from vivace.training.loop import Loop
from vivace.training.proof.later import proved_again
from vivace.training.proof.snapshot import set_by
from vivace.training.proof.together import Unproved
from vivace.training.rig import assemble
from vivace.training.service import equip


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time for every proof."""
    monkeypatch.setattr("vivace.api.running.proofs.SHARE", 1e9)


@pytest.fixture
def between_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    """No checkpoint where an epoch ends, however quickly it were written."""
    monkeypatch.setattr("vivace.api.running.drive.SAVING_SHARE", -1.0)


@pytest.mark.usefixtures("unhurried", "between_epochs")
@pytest.mark.parametrize(
    "late", [planted.LateDetachment(layer="0"), planted.StaleGradients()], ids=["detached", "stale"]
)
def test_a_fault_that_comes_late_is_taken_out_alone_and_its_steps_are_told(late: Technique, tmp_path: Path) -> None:
    wanted = vv.train(job(epochs=6), plan=["fused-optimizer"], out=tmp_path / "right")
    assert vv.parity(job(epochs=6), Plan((FusedOptimizer(), late))).verdict is QualityVerdict.HELD

    found = vv.train(job(epochs=6), plan=Plan((FusedOptimizer(), late)), out=tmp_path / "run")

    assert str(found.plan) == "fused-optimizer"
    assert found.losses == wanted.losses and found.steps == wanted.steps
    right, trained = (load_file(tmp_path / name / "model.safetensors") for name in ("right", "run"))
    assert all(torch.equal(value, trained[name]) for name, value in right.items())
    (told,) = found.dropped
    assert told.startswith("steps 1 to 42 were taken with a step that was not the original's (")
    assert "in step 42: " in told
    assert f"{late} was taken out, and it was trained with fused-optimizer from the beginning" in told
    assert [one.verdict.value for one in found.proofs] == ["NOT HELD", "HELD"]
    document = read_run(tmp_path / "run")
    assert told in headline(document)  # type: ignore[arg-type]
    assert "was not the original" in page_of(document)


@pytest.mark.usefixtures("unhurried")
def test_after_a_late_fault_the_run_goes_on_from_the_last_checkpoint_that_was_proved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vivace.api.running.drive.CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("vivace.api.running.drive.PATIENCE_SECONDS", 1e-6)
    late = planted.LateDetachment(layer="0", after=60)

    found = vv.train(job(epochs=12), plan=Plan((FusedOptimizer(), late)), out=tmp_path)

    bad = next(one for one in found.proofs if one.verdict is QualityVerdict.NOT_HELD)
    assert 0 < bad.since < bad.step < 60, "its own proofs count as calls"
    assert found.dropped[0].endswith(f"trained with fused-optimizer from step {bad.since} on")
    assert (found.steps, len(found.losses), found.resumed_steps) == (84, 12, 0)
    plain = vv.train(job(epochs=12), plan=["fused-optimizer"])
    assert found.losses == pytest.approx(plain.losses, rel=1e-6)


def test_a_run_without_time_for_a_proof_says_which_steps_were_not_proved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vivace.api.running.proofs.SHARE", 1e-9)

    found = vv.train(job(), plan=["fused-optimizer"], out=tmp_path)

    assert found.proofs == ()
    assert found.unproved.startswith("steps 1 to 21 were not proved again: a proof takes about ")
    assert found.unproved[1:21] in page_of(read_run(tmp_path))


def nothing_dropped() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 4))


class Attributed(nn.Module):
    """Becomes another model by what it counts itself, draws by a generator of its own, and keeps a running tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(12, 4)
        self.calls, self.seen = 0, [0.0]
        self.mean = torch.zeros(12)
        self.register_buffer("kept", torch.zeros(1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.seen[0] += 0.1
        self.shown = self.inner(x)  # what it was computed from hangs on it
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0).detach()
        self.kept.add_(0.01)
        return self.inner(x - self.mean) * (1 + 0.1 * self.calls + self.seen[0] + self.kept)  # type: ignore[no-any-return]


COUNTED = {"calls": 0}


def counting(model: nn.Module, batch: Any) -> torch.Tensor:
    """A loss that counts its calls beside the model, and becomes another one after many."""
    COUNTED["calls"] += 1
    return loss(model, batch) * (1.0 if COUNTED["calls"] < 15 else 2.0)


def trained(work: Training, plan: Plan, proving: bool) -> Iterator[Any]:
    """The losses of all steps, what proofs found, and the model and the generator at the end."""
    COUNTED["calls"] = 0
    loop = Loop(work, equip(assemble(work), work, plan), None, "")
    found = []
    while loop.position.epoch < work.epochs:
        yield loop.advance(1).losses
        if proving and loop.position.steps in (1, 5, 6, 7, 20):
            found.append(proved_again(work, plan, loop, {}))
    yield [one.holds for examined in found for one in examined.agreements]
    yield [value.tolist() for value in loop.rig.model.state_dict().values()]
    yield [value.tolist() for state in loop.rig.optimizer.state.values() for value in state.values()]
    yield torch.rand(1).item()


@pytest.mark.parametrize(
    ("work", "plan"),
    [
        (job(), Plan((FusedOptimizer(),))),
        (job(), Plan((SampleCache(), RecordedStep()))),
        (job(), Plan((Bfloat16(),))),
        (image_job(optimizer=momentum), Plan((FusedOptimizer(),))),
        (job(model=Attributed, evaluate=None), Plan((FusedOptimizer(),))),
        (job(loss=counting), Plan((FusedOptimizer(),))),
    ],
    ids=["fused", "recorded", "bfloat16", "statistics", "attributes", "counting"],
)
def test_a_proof_holds_of_what_is_right_and_leaves_the_run_as_it_was_to_the_bit(work: Training, plan: Plan) -> None:
    *with_proofs, held, model, optimizer, drawn = trained(work, plan, proving=True)
    *without, _, plain_model, plain_optimizer, plain_drawn = trained(work, plan, proving=False)

    assert len(held) > 10 and all(held)
    assert with_proofs == without
    assert (model, optimizer, drawn) == (plain_model, plain_optimizer, plain_drawn)


@pytest.mark.slow
@pytest.mark.usefixtures("unhurried")
def test_a_compiled_step_is_proved_as_it_is_with_the_masks_that_it_draws() -> None:
    found = vv.train(job(model=nothing_dropped), plan=["sample-cache", "native-step"])
    dropping = vv.train(job(), plan=["sample-cache", "native-step"])

    for run in (found, dropping):
        assert {one.verdict.value for one in run.proofs} == {"HELD"} and run.unproved == ""
        assert {one.reference for one in run.proofs} == {"float64"}


class Ageing(Points):
    """Gives other samples after it was read for a while, as a curriculum that is kept in the dataset does."""

    reads = 0

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        points, label = super().__getitem__(index)
        return (points if Ageing.reads == 0 else points + 1.0), label


def test_a_cache_of_samples_that_have_become_others_is_caught() -> None:
    Ageing.reads = 0
    work, plan = job(data=Ageing(), evaluate=None), Plan((SampleCache(),))
    loop = Loop(work, equip(assemble(work), work, plan), None, "")
    loop.advance(3)
    assert all(one.holds for one in proved_again(work, plan, loop, {}).agreements)
    Ageing.reads = 1

    found = proved_again(work, plan, loop, {})

    Ageing.reads = 0
    assert [str(one) for one in found.agreements if not one.holds] == [
        "batch of batch 2 of epoch 0 in step 2: the data give other values by now than the plan's feed does"
    ]


def test_what_an_evaluation_sets_is_the_jobs_own_and_what_a_technique_sets_is_not() -> None:
    work, plan = job(model=nothing_dropped), Plan((FusedOptimizer(),))
    loop = Loop(work, equip(assemble(work), work, plan), None, "")
    model, changed = loop.rig.model, dict[Any, Any]()
    loop.advance(2)
    set_by(lambda: model[0].weight.requires_grad_(False), model, changed)  # type: ignore[index, operator]
    loop.advance(2)
    assert all(one.holds for one in proved_again(work, plan, loop, changed).agreements)

    model[2].weight.requires_grad_(False)  # type: ignore[index, operator]
    loop.advance(2)

    off = {one.name for one in proved_again(work, plan, loop, changed).agreements if not one.holds}
    assert "2.weight" in off


def test_a_users_code_that_fails_beside_the_run_ends_no_training() -> None:
    calls = {"models": 0}

    def once() -> nn.Module:
        calls["models"] += 1
        if calls["models"] > 1:
            raise ValueError("only one")
        return nothing_dropped()

    work, plan = job(model=once, loss=loss), Plan((FusedOptimizer(),))
    loop = Loop(work, equip(assemble(work), work, plan), None, "")
    loop.advance(2)

    with pytest.raises(Unproved, match="ValueError: only one"):
        proved_again(work, plan, loop, {})


@pytest.mark.slow
def test_a_resumed_run_tells_what_the_session_before_it_proved_and_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vivace.api.step_plans.LEAST_GAIN", 0.0)
    monkeypatch.setattr("vivace.api.step_plans.trained_with", lambda plan, verdict: plan)
    monkeypatch.setattr("vivace.api.running.drive.Drive._look", stopped)
    with pytest.raises(KeyboardInterrupt):
        vv.train(job(), only=["fused-optimizer"], out=tmp_path, time="60s")
    monkeypatch.undo()
    chosen = read_training((tmp_path / "chosen.json").read_bytes())

    found = vv.train(job(), out=tmp_path, resume=True)

    assert found.resumed_steps == 7 and str(found.plan) == "fused-optimizer"
    assert found.speedup is not None and found.speedup == chosen.speedup
    assert found.parity is not None and found.parity.verdict is QualityVerdict.HELD
    assert [str(one.plan) for one in found.trials if one.accepted] == ["fused-optimizer"]
    document = read_run(tmp_path)
    assert document.parity == chosen.parity and document.ledger == chosen.ledger  # type: ignore[union-attr]
    assert "MEASURED, in the session before it was resumed" in headline(document)  # type: ignore[arg-type]
    assert "are of the session that began this run, on this kind of machine" in page_of(document)

    (tmp_path / "chosen.json").write_text("{}")
    other = vv.train(job(), out=tmp_path, resume=True, without=["fused-optimizer"])
    assert other.speedup is None and "cannot be read" in other.earlier


def stopped(drive: Any, told: Any, stopping: Any) -> Any:
    """As after Ctrl-C, at the end of the first epoch."""
    if told["position"]["batch"] == 0:
        drive._save(told["position"]["steps"], False)
        raise KeyboardInterrupt
    return False, False
