"""Recovery by the public door: a pruned network of real digits is refused, wins its quality back, and wins."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import vivace as vv
from vivace.api.request import options_of
from vivace.cli.digits import load_digits, train_network
from vivace.core.measurement import Outcome
from vivace.core.plan import Plan
from vivace.core.quality import QualityVerdict
from vivace.core.result import Trial
from vivace.data import reading, splits
from vivace.search.laboratory import Laboratory
from vivace.search.prepare import prepare
from vivace.techniques.memory.inference_mode import InferenceMode
from vivace.techniques.sparsity.channel_pruning import ChannelPruning
from vivace.techniques.sparsity.recovery import Recovery

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
ALLOWED = ["channel-pruning", "recovery", "onnx-runtime", "inference-mode"]
BATCH = 16


def accuracy(output: Tensor, target: Tensor) -> Tensor:
    """1 where the digit is right. A target holds the digit and the number of the image."""
    return (output.argmax(1) == target[:, 0]).float()


@pytest.fixture(scope="module")
def workload() -> Callable[..., vv.Workload]:
    """A workload of a trained network, with a loss or without."""
    training, held_out = load_digits()
    network = train_network(training)
    targets = torch.stack([held_out.labels, torch.arange(len(held_out.labels))], 1)
    pairs = list(zip(held_out.images.split(BATCH), targets.split(BATCH), strict=True))

    def make(loss: Any = None) -> vv.Workload:
        return vv.Workload(network, (pairs[0][0],), pairs, accuracy, "digits", loss=loss)

    return make


def with_and_without(trials: Sequence[Trial]) -> list[tuple[Trial, Trial]]:
    """Each trial whose quality was to be won back, and the trial of the same plan before that."""
    by_plan = {trial.plan: trial for trial in trials}
    recovered = [trial for trial in trials if any(t.mends for t in trial.plan)]
    return [(by_plan[Plan(tuple(t for t in r.plan if not t.mends))], r) for r in recovered]


def test_a_pruned_network_that_was_refused_holds_after_recovery(workload: Any, tmp_path: Path) -> None:
    result = vv.optimize(workload(), vv.Budget(0.01), time="90s", out=tmp_path / "fast", only=ALLOWED, gate="point")

    pairs = with_and_without(result.candidates)
    assert pairs
    for refused, _ in pairs:
        assert refused.outcome is Outcome.QUALITY_FAILED
        assert refused.quality is not None and refused.quality.drop is not None and refused.quality.drop > 0.01
    assert any(recovered.outcome is Outcome.OK for _, recovered in pairs), [recovered.reason for _, recovered in pairs]
    assert Recovery() in result.plan.techniques
    assert result.quality.verdict is QualityVerdict.HELD


def test_a_loss_that_is_not_a_number_ends_its_plans_with_the_reason_and_the_rest_compete(
    workload: Any, tmp_path: Path
) -> None:
    def loss(output: Tensor, target: Tensor) -> Tensor:
        return functional.cross_entropy(output, target[:, 0]) * float("nan")

    result = vv.optimize(workload(loss), vv.Budget(0.01), time="90s", out=tmp_path / "fast", only=ALLOWED)

    pairs = with_and_without(result.candidates)
    assert pairs
    for _, recovered in pairs:
        assert recovered.outcome is Outcome.UNSUPPORTED
        assert "recovery: the loss is nan on held-out calibration samples" in recovered.reason
    assert any(trial.outcome is Outcome.OK for trial in result.candidates)
    assert vv.load(tmp_path / "fast")(workload().inputs[0]).shape == (BATCH, 10)


def test_training_sees_the_calibrate_part_and_nothing_else(workload: Any, tmp_path: Path) -> None:
    seen = tmp_path / "seen.txt"

    def loss(output: Tensor, target: Tensor) -> Tensor:
        with seen.open("a") as file:
            file.writelines(f"{number}\n" for number in target[:, 1].tolist())
        return functional.cross_entropy(output, target[:, 0])

    job, folder = workload(loss), tmp_path / "run"
    prepared = prepare(job, folder)
    with Laboratory(prepared, options_of(job), folder) as laboratory:
        for name in ("select", "confirm", "race", "confirm-timing", "referee"):
            shutil.rmtree(folder / name)
        built = laboratory.build(Plan.of([ChannelPruning(share=0.25), Recovery(steps=50), InferenceMode()]), 60.0)

    parts = splits.split(reading.read(job.data, job.inputs), [0])
    mine, others = ({int(unit.target[0, 1]) for unit in part.units} for part in (parts.calibrate, parts.select))
    found = set(map(int, seen.read_text().split()))
    assert built.is_dir()
    assert found <= mine
    assert len(found) > 0.8 * len(mine)
    assert not found & others
