"""`vv.train` and `vv.parity` by the public door: the plan, the proof, the run, and going on after a kill."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import vivace as vv
from vivace.api import diagnose
from vivace.core.errors import UsageError, WorkerFailure
from vivace.core.plan import Plan
from vivace.core.quality import QualityVerdict
from vivace.core.training.bound import StepBound
from vivace.core.training.parity import Kind
from vivace.core.training.run import Basis
from vivace.report.pages import page_of
from vivace.report.progress import SilentProgress
from vivace.report.reading import read_run
from vivace.techniques.memory.fused_optimizer import FusedOptimizer
from vivace.techniques.memory.narrow_optimizer_state import NarrowOptimizerState
from vivace.techniques.precision.bfloat16 import Bfloat16
from vivace.testing import planted_training as planted
from vivace.testing.tiny_training import Points, accuracy, image_job, job, loss, momentum

PLAN = ["sample-cache", "fused-optimizer"]


def test_parity_by_the_public_door_holds_and_says_of_how_many_tensors() -> None:
    found = vv.parity(job(), PLAN, seeds=3, curve_steps=20)

    assert found.verdict is QualityVerdict.HELD, found.reason
    assert found.reference == "float64"
    assert found.curve is not None and found.curve.verdict is QualityVerdict.HELD
    assert found.scores is not None and len(found.scores.original) == 3


def test_a_wrong_gradient_is_named() -> None:
    found = vv.parity(job(), Plan((planted.DetachedBranch(layer="0"),)))

    assert found.verdict is QualityVerdict.NOT_HELD
    assert {one.name for one in found.culprits if one.kind is Kind.GRADIENT} == {"0.weight", "0.bias"}
    assert "gradient of 0." in found.reason


def test_a_technique_that_trains_differently_is_left_out_alone() -> None:
    run = vv.train(job(), plan=Plan((FusedOptimizer(), planted.DetachedBranch(layer="0"))))

    assert str(run.plan) == "fused-optimizer"
    assert run.parity is not None and run.parity.verdict is QualityVerdict.HELD
    assert any("left out alone: gradient of 0." in note for note in run.parity.notes)


@pytest.mark.parametrize("asked", [{"steps": 0}, {"seeds": -1}, {"curve_steps": 1}])
def test_a_proof_of_nothing_is_refused(asked: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="allowed are 1, 0 and 4"):
        vv.parity(job(), PLAN, **asked)  # type: ignore[arg-type]


def test_a_training_gives_the_same_model_as_a_plain_loop(tmp_path: Path) -> None:
    work = job()
    run = vv.train(work, plan=(), out=tmp_path / "run")

    torch.manual_seed(work.seed)
    model = work.model().train()
    optimizer = work.optimizer(model.parameters())
    from vivace.training.feed import feed_of

    feed = feed_of(work)
    for epoch in range(work.epochs):
        for batch in feed.epoch(epoch):
            optimizer.zero_grad()
            loss(model, batch).backward()
            optimizer.step()
    kept = load_file(tmp_path / "run" / "model.safetensors")
    for name, value in model.state_dict().items():
        assert torch.equal(value, kept[name])
    assert run.model is not None
    assert run.scores[-1] == accuracy(Points())(run.model)


def test_a_run_tells_where_the_time_goes_and_keeps_a_document(tmp_path: Path) -> None:
    run = vv.train(job(epochs=2), plan=PLAN, out=tmp_path / "run")
    document = json.loads((tmp_path / "run" / "run.json").read_text())

    assert (run.steps, len(run.losses), len(run.scores)) == (14, 2, 2)
    assert document["plan_name"] == "sample-cache + fused-optimizer"
    assert document["diagnosis"]["parameter_bytes"] == 4 * sum(p.numel() for p in job().model().parameters())
    assert document["losses"] == list(run.losses)
    phases = ("input", "forward", "backward", "update")
    for found, node in ((run.diagnosis, document["diagnosis"]), (run.diagnosis_after, document["diagnosis_after"])):
        assert found is not None
        assert sum(node[f"{name}_seconds"] for name in phases) == pytest.approx(found.step_seconds)
        assert all(node[f"{name}_seconds"] > 0 for name in phases)
        assert 0 < found.share_of_ceiling < 1
    assert document["diagnosis_after"]["flops"] == document["diagnosis"]["flops"]
    assert document["diagnosis_after"]["evaluate_seconds"] is None
    assert run.diagnosis.evaluate_seconds is not None and run.diagnosis.evaluate_seconds > 0


def test_a_run_keeps_its_steps_and_the_times_of_its_epochs_and_draws_its_page(tmp_path: Path) -> None:
    run = vv.train(job(epochs=2), plan=(), out=tmp_path / "run")
    spans, epochs = run.course.spans, run.course.epochs

    assert [span.step for span in spans] == list(range(1, 15))
    assert sum(span.loss for span in spans[:7]) / 7 == pytest.approx(run.losses[0])
    assert [end.step for end in epochs] == [7, 14]
    assert all(span.step_seconds is not None and span.step_seconds > 0 for span in spans)
    assert all(end.score_seconds is not None and end.score_seconds > 0 for end in epochs)
    assert spans[-1].elapsed_seconds <= epochs[-1].elapsed_seconds <= run.seconds
    assert run.diagnosis_after is None
    assert (tmp_path / "run" / "report.html").read_text() == page_of(read_run(tmp_path / "run"))
    numbers = dict(run.conditions["job"])
    assert numbers.pop("model").endswith("tiny_training.py:perceptron")
    assert numbers == {"batch_size": 16, "epochs": 2, "seed": 0, "shuffle": True}


@pytest.mark.slow
def test_a_score_that_is_reached_ends_the_training() -> None:
    run = vv.train(job(epochs=50), until=0.9, plan=PLAN)

    assert run.reached is True
    assert len(run.scores) < 50
    assert run.scores[-1] is not None and run.scores[-1] >= 0.9


class Dying(SilentProgress):
    """Kills the worker that trains once it has taken some steps and kept a checkpoint."""

    def stage(self, name: str, detail: str = "") -> None:
        if name == "train" and "step 10:" in detail:
            children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
            for child in children:
                os.kill(int(child), signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_training_goes_on_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vivace.api.running.drive.CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("vivace.api.running.drive.PATIENCE_SECONDS", 1e-6)
    wanted = vv.train(job(), plan=PLAN, out=tmp_path / "whole")

    with pytest.raises(WorkerFailure):
        vv.train(job(), plan=PLAN, out=tmp_path / "run", progress=Dying())
    with pytest.raises(UsageError, match="holds checkpoints"):
        vv.train(job(), plan=PLAN, out=tmp_path / "run")
    went_on = vv.train(job(), out=tmp_path / "run", resume=True)

    assert str(went_on.plan) == "sample-cache + fused-optimizer"
    assert 0 < went_on.resumed_steps < went_on.steps == wanted.steps
    whole, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "run"))
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert went_on.losses == pytest.approx(wanted.losses) and went_on.scores == wanted.scores
    assert [end.step for end in went_on.course.epochs] == [end.step for end in wanted.course.epochs]
    assert went_on.course.spans[0].step == 1 and went_on.course.spans[-1].step == wanted.steps

    with pytest.raises(UsageError, match="of another job, or this one has changed"):
        vv.train(job(optimizer=momentum), out=tmp_path / "run", resume=True)
    with pytest.raises(UsageError, match="goes on with the plan that the run had, sample-cache"):
        vv.train(job(), out=tmp_path / "run", resume=True, plan=["foreach-optimizer"])
    again = vv.train(job(), out=tmp_path / "run", resume=True)
    assert (again.losses, again.scores, again.steps) == (went_on.losses, went_on.scores, went_on.steps)


@pytest.mark.parametrize(
    ("changes", "asked", "told"),
    [
        ({"evaluate": None}, {"until": 0.9}, "has no evaluate"),
        ({}, {"plan": ["no-such-technique"]}, "no-such-technique"),
        ({}, {"plan": ["float16", "recorded-step"]}, "needs a loss that is not scaled"),
        ({"loss": lambda model, batch: loss(model, batch) * float("nan")}, {"plan": ()}, "the loss is nan"),
    ],
    ids=["until", "technique", "conflict", "nan"],
)
def test_what_cannot_be_trained_is_told(changes: dict[str, Any], asked: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        vv.train(job(**changes), **asked)


def test_a_job_of_another_kind_is_refused() -> None:
    with pytest.raises(UsageError, match=r"vivace\.Training"):
        vv.train("job")  # type: ignore[arg-type]


def test_a_technique_that_is_not_known_is_told_before_anything_is_diagnosed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["vivace.api.train"], "diagnose", lambda *_: pytest.fail("it was diagnosed"))

    with pytest.raises(UsageError, match="unknown technique 'native-stap'; did you mean 'native-step'"):
        vv.train(job(), only=["native-stap"])


def test_a_diagnosis_advises_what_was_measured_before_bounds_and_knows_the_ceiling() -> None:
    found = diagnose(job())

    assert found.share_of_ceiling is not None and 0 < found.share_of_ceiling < 1
    assert found.communication_seconds == 0
    measured = [one.interval for one in found.advice if one.basis is Basis.MEASURED]
    bounds = [one for one in found.advice if one.basis is Basis.PREDICTED]
    assert [*found.advice][len(measured) :] == sorted(bounds, key=lambda one: -one.gain)
    lows = [one.low for one in measured if one is not None]
    assert len(lows) == len(measured) and lows == sorted(lows, reverse=True) and all(low > 1 for low in lows)
    assert all(one.interval is None for one in bounds)
    tried = {one.technique for one in found.advice if one.change.startswith("the same step with ")}
    assert {one.basis for one in found.advice if one.technique in tried} <= {Basis.MEASURED}
    assert {one.basis for one in found.advice if one.technique not in tried} == {Basis.PREDICTED}


def test_waiting_for_slow_samples_is_called_input() -> None:
    class Slow(Points):
        def __getitem__(self, index: int) -> Any:
            found = super().__getitem__(index)
            for _ in range(40):
                torch.linalg.inv(torch.eye(16))
            return found

    found = diagnose(job(data=Slow()))

    assert found.bound is StepBound.INPUT
    assert found.input_seconds > found.forward_seconds


@pytest.mark.slow
def test_the_search_finds_the_cache_where_input_is_the_bound(tmp_path: Path) -> None:
    class Slow(Points):
        def __getitem__(self, index: int) -> Any:
            found = super().__getitem__(index)
            for _ in range(40):
                torch.linalg.inv(torch.eye(16))
            return found

    run = vv.train(job(data=Slow()), out=tmp_path / "run", only=["sample-cache", "fused-optimizer"], time="60s")

    ledger = json.loads((tmp_path / "run" / "run.json").read_text())["ledger"]
    assert "sample-cache" in str(run.plan)
    assert (ledger[0]["brought"], ledger[0]["over_name"]) == ("sample-cache", "original")
    assert ledger[0]["speedup"]["low"] > 1.5
    assert run.speedup is not None and run.speedup.low > 1.5
    assert run.parity is not None and run.parity.verdict is QualityVerdict.HELD


@pytest.mark.slow
def test_a_wrong_technique_is_refused_alone_and_the_training_goes_on() -> None:
    refused = dataclasses.replace(image_job(), name="images")
    found = vv.parity(refused, Plan((planted.StaleBuffer(),)))

    assert found.verdict is QualityVerdict.NOT_HELD
    assert "buffer of 1." in found.reason
    assert "1.running_var" in {one.name for one in found.culprits}


@pytest.mark.slow
def test_a_plan_that_trains_differently_is_not_used(tmp_path: Path) -> None:
    run = vv.train(job(epochs=1), plan=Plan((planted.DroppedScale(),)), out=tmp_path / "run")

    assert run.plan == Plan()
    assert run.parity is not None and run.parity.verdict is QualityVerdict.NOT_HELD
    assert run.speedup is None


def test_a_dropped_scale_under_bfloat16_is_caught_by_the_public_door_too() -> None:
    found = vv.parity(job(), Plan((planted.DroppedScale(), Bfloat16())))

    assert found.verdict is QualityVerdict.NOT_HELD
    assert found.effect == "rounded"


LINE = (
    r"epoch (?P<epoch>\d) of 2, step (?P<step>\d+): loss [\d.]+(?P<score>, score [\d.]+)?, [\d.e-]+ ms a step"
    r"(?P<left>, at most .+ left)?"
)
"""What is told while it trains."""


class Short:
    """Says that it has more batches than it gives."""

    def __len__(self) -> int:
        return 44

    def __iter__(self) -> Iterator[Any]:
        points = Points()
        return iter([(points.points[:16], points.labels[:16])] * 5)


class Notes(SilentProgress):
    def __init__(self) -> None:
        self.told: list[str] = []
        self.lines: list[str] = []

    def stage(self, name: str, detail: str = "") -> None:
        self.lines += [detail] if name == "train" else []

    def note(self, text: str) -> None:
        self.told.append(text)


def test_data_that_end_early_are_told() -> None:
    progress = Notes()
    run = vv.train(job(data=Short(), batch_size=None, epochs=2), plan=(), progress=progress)

    assert run.steps == 10
    first, last = (re.fullmatch(LINE, progress.lines[place]) for place in (0, -1))
    assert first and (first["epoch"], first["step"], first["left"] is not None) == ("2", "5", True)
    assert last and (last["epoch"], last["step"], last["score"] is not None) == ("2", "10", True)
    assert [note for note in progress.told if "len" in note] == [
        "the data gave 5 batches in an epoch, and say that they are 44 (len)"
    ]


def test_a_plan_that_changes_the_computation_is_judged_by_its_losses_before_it_trains() -> None:
    narrow = NarrowOptimizerState()
    kept = vv.train(job(epochs=1), plan=Plan((narrow,)))
    assert (str(kept.plan), kept.parity and kept.parity.verdict) == ("narrow-optimizer-state", QualityVerdict.HELD)
    assert kept.parity is not None and kept.parity.curve is not None and len(kept.parity.curve.original) == 3

    left = vv.train(job(epochs=1), plan=Plan((planted.DetachedBranch(layer="0"), narrow)))
    assert str(left.plan) == "narrow-optimizer-state"
