"""Pruned weights win their quality back on the calibration calls alone, or the reason is told and nothing changes."""

import math

import pytest
import torch
from taught import job_of, trained_network
from torch import nn

from vivace.core.errors import NotApplicable, UsageError
from vivace.core.facts import Fact
from vivace.core.plan import Plan
from vivace.core.quality import Gate, QualityVerdict
from vivace.measure.clock import FakeClock
from vivace.runtimes import eager
from vivace.techniques.fine_tuning import fine_tune
from vivace.techniques.sparsity.channel_pruning import ChannelPruning
from vivace.techniques.sparsity.low_rank import LowRank
from vivace.techniques.sparsity.magnitude_pruning import MagnitudePruning
from vivace.techniques.sparsity.recovery import Recovery
from vivace.techniques.sparsity.sparse_kernels import SparseKernels
from vivace.testing import contract, tiny


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return job_of(trained_network(), tmp_path_factory.mktemp("digits"))


@pytest.mark.parametrize(
    ("pruning", "rule"),
    [
        (ChannelPruning(share=0.5), Gate.STRICT),
        (LowRank(energy=0.85), Gate.POINT),
        (MagnitudePruning(share=0.6), Gate.STRICT),
    ],
    ids=["channels", "low rank", "magnitude"],
)
def test_a_pruned_network_that_is_refused_at_one_point_holds_after_recovery(job, pruning, rule):
    pruned = pruning.apply(job.model, job.work)

    recovered = Recovery().apply(pruned, job.work)

    assert job.verdict(pruned, rule) is QualityVerdict.NOT_HELD
    assert job.verdict(recovered, rule) is QualityVerdict.HELD


def test_zeros_stay_zero_and_the_other_weights_of_the_layer_move(job):
    pruned = MagnitudePruning(share=0.8).apply(job.model, job.work)

    after = Recovery(steps=30).apply(pruned, job.work).program.state_dict

    zeroed = {n: w == 0 for n, w in pruned.program.state_dict.items() if w.dim() == 2 and (w == 0).any()}
    assert len(zeroed) == 2
    for name, zeros in zeroed.items():
        assert zeros.float().mean() == pytest.approx(0.8, abs=1e-3)
        assert torch.equal(after[name] == 0, zeros)
        assert (after[name] != pruned.program.state_dict[name])[~zeros].float().mean() > 0.5


def test_shapes_and_running_statistics_stay(job):
    pruned = ChannelPruning(share=0.5).apply(job.model, job.work)

    before, after = pruned.program.state_dict, Recovery(steps=30).apply(pruned, job.work).program.state_dict

    assert {n: w.shape for n, w in after.items()} == {n: w.shape for n, w in before.items()}
    statistics = [name for name in before if "running" in name]
    assert len(statistics) == 2
    assert all(torch.equal(before[name], after[name]) for name in statistics)


def test_the_factors_of_a_low_rank_layer_are_trained_too(job):
    pruned = LowRank(energy=0.75).apply(job.model, job.work)

    after = Recovery(steps=30).apply(pruned, job.work).program.state_dict

    factors = [name for name in after if name.endswith(("_outer", "_inner"))]
    assert factors
    assert not any(torch.equal(after[name], pruned.program.state_dict[name]) for name in factors)


def test_the_same_plan_gives_the_same_weights_again(job):
    pruned = ChannelPruning(share=0.5).apply(job.model, job.work)

    one, again = (Recovery(steps=40).apply(pruned, job.work).program.state_dict for _ in range(2))

    assert all(torch.equal(one[name], again[name]) for name in one)


def test_a_loss_is_trained_by_its_own_labels(job):
    pruned = ChannelPruning(share=0.5).apply(job.model, job.work)
    shifted = [(labels + 1) % 10 for labels in job.targets]

    taught, untaught = (
        Recovery(steps=300).apply(pruned, work)
        for work in (job.with_loss(nn.functional.cross_entropy, shifted), job.work)
    )

    losses = [
        nn.functional.cross_entropy(eager.run_flat(model.program, [job.images])[0], (job.labels + 1) % 10)
        for model in (taught, untaught)
    ]
    assert losses[0] < losses[1] / 2


def _no_number(output, target):
    return nn.functional.cross_entropy(output, target) * math.nan


def _nan_after(count):
    """A loss that is sound until it was computed so many times."""
    calls = []

    def loss(output, target):
        calls.append(1)
        return nn.functional.cross_entropy(output, target) * (math.nan if len(calls) > count else 1.0)

    return loss


def _flat(output, target):
    return output.sum() * 0.0 + 1.0


def _rising():
    """A loss that is larger each time."""
    calls = []

    def loss(output, target):
        calls.append(1)
        return nn.functional.cross_entropy(output, target) + len(calls)

    return loss


def _broken(output, target):
    raise KeyError("logits")


@pytest.mark.parametrize(
    ("loss", "reason"),
    [
        (_no_number, "the loss is nan on held-out calibration samples before any training"),
        (_nan_after(5), r"training diverged: the loss .* was \d.* before and nan after"),
        (_flat, "training won nothing back: .* was 1 before and never less in .* steps, 1 at last"),
        (_rising(), r"training won nothing back: .* and never less in 40 steps"),
        (_broken, "the loss _broken failed: KeyError: 'logits'; it is called as loss"),
        (lambda output, target: output, r"returned a tensor of shape \[20, 10\]; allowed is a tensor of one value"),
        (lambda output, target: 1.0, "returned a float; allowed is a tensor of one value"),
        (lambda output, target: output.detach().mean() ** 2, "no weight that can be trained reaches the loss"),
    ],
    ids=["nan", "nan later", "flat", "rising", "raises", "many values", "no tensor", "no gradient"],
)
def test_a_loss_that_diverges_or_fails_ends_with_its_reason(job, loss, reason):
    pruned = ChannelPruning(share=0.5).apply(job.model, job.work)
    before = {name: weight.clone() for name, weight in pruned.program.state_dict.items()}

    with pytest.raises(NotApplicable, match=reason):
        Recovery(steps=200).apply(pruned, job.with_loss(loss))

    assert all(torch.equal(weight, before[name]) for name, weight in pruned.program.state_dict.items())


def test_what_was_won_before_a_loss_diverges_is_kept(job):
    pruned = ChannelPruning(share=0.5).apply(job.model, job.work)

    recovered = Recovery(steps=200).apply(pruned, job.with_loss(_nan_after(60)))

    assert job.right(recovered).mean() > job.right(pruned).mean() + 0.02


def test_training_ends_when_its_seconds_are_over(job):
    pruned = ChannelPruning(share=0.5).apply(job.model, job.work)

    tuned = fine_tune(pruned, job.work, steps=10_000, seconds=100, clock=FakeClock([1.0] * 1000))

    assert 50 < tuned.steps <= 100


def test_an_original_that_was_not_pruned_has_nothing_to_win_back(job):
    with pytest.raises(NotApplicable, match="was 0 before"):
        Recovery(steps=60).apply(job.model, job.work)


def test_recovery_is_legal_after_pruning_only_and_never_after_sparse_kernels():
    facts = contract.variants_of(Recovery)[0].needs - {Fact.PRUNED} | {Fact.HAS_LINEAR, Fact.UNQUANTIZED, Fact.ON_CPU}
    pruned = [MagnitudePruning(), Recovery(), SparseKernels()]

    assert "recovery needs weights that were pruned" in (Plan((Recovery(),)).illegal(facts) or "")
    assert "recovery needs weights that were pruned" in (Plan((pruned[0], pruned[2], pruned[1])).illegal(facts) or "")
    assert Plan.of(reversed(pruned)).techniques == tuple(pruned)
    assert Plan.of(pruned).illegal(facts | {Fact.RUNNABLE}) is None


@pytest.mark.parametrize("model", tiny.MODELS, ids=lambda model: model.name)
def test_every_tiny_model_can_be_recovered(model, tmp_path):
    reason = contract.check_applied(Recovery(steps=60), model, tmp_path, [MagnitudePruning(share=0.3, smallest=4)])

    assert reason == ""


@pytest.mark.parametrize("steps", [0, -1, 1.5, True])
def test_an_impossible_number_of_steps_is_refused(steps):
    with pytest.raises(UsageError, match="1 or more"):
        Recovery(steps=steps)
