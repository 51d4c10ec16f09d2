"""Layers of low rank in two factors: the right rank, less work, and nothing done where it would not save any."""

import dataclasses

import pytest
import torch
from torch import nn

from vivace.core.errors import NotApplicable, UsageError
from vivace.core.layer import StoredWeight
from vivace.core.work import Work
from vivace.measure.fidelity import compare_outputs
from vivace.runtimes import capture, eager, store
from vivace.runtimes.graphs import counts
from vivace.runtimes.graphs.layers import path_of
from vivace.techniques.sparsity.low_rank import LowRank, factors
from vivace.testing import contract

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(4, 6, 64, generator=GENERATOR)
WORK = Work("any", None, frozenset(), contract.SAMPLE_COST, None)


def _of_rank(rank, outputs, inputs, noise=0.0):
    product = torch.randn(outputs, rank, generator=GENERATOR) @ torch.randn(rank, inputs, generator=GENERATOR)
    return product + noise * torch.randn(outputs, inputs, generator=GENERATOR)


def _net(noise=0.05):
    """A layer near rank 8, one of full rank, and a head near rank 2."""
    net = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, 10)).eval()
    with torch.no_grad():
        net[0].weight.copy_(_of_rank(8, 96, 64, noise))
        net[2].weight.copy_(torch.linalg.qr(torch.randn(96, 96, generator=GENERATOR))[0])
        net[4].weight.copy_(_of_rank(2, 10, 96, noise))
    return net


def _linears(program):
    return [node for node in program.graph.nodes if node.target is torch.ops.aten.linear.default]


def test_only_the_layers_of_low_rank_are_split_and_the_answers_stay(tmp_path):
    net = _net()
    model = capture.capture(net, (X,)).model

    store.save(LowRank(energy=0.99).apply(model, WORK), tmp_path / "program")
    program = store.load(tmp_path / "program")

    shapes = [
        tuple(node.args[1].meta["val"].shape) for node in _linears(store.read_model(tmp_path / "program").program)
    ]
    assert shapes == [(8, 64), (96, 8), (96, 96), (2, 96), (10, 2)]
    more = torch.randn(3, 6, 64, generator=GENERATOR)
    with torch.no_grad():
        assert compare_outputs([[net(X)], [net(more)]], [[program(X)], [program(more)]]).sqnr_db > 20


def test_the_bytes_of_factors_are_told_beside_those_of_the_whole_weight():
    changed = LowRank(energy=0.99).apply(capture.capture(_net(), (X,)).model, WORK)

    assert changed.stored_weights == (
        StoredWeight("0", "rank 8", 4 * 64 * 96, 4 * 8 * (64 + 96)),
        StoredWeight("4", "rank 2", 4 * 96 * 10, 4 * 2 * (96 + 10)),
    )
    assert [path_of(node) for node in _linears(changed.program)] == ["0", "0", "2", "4", "4"]


def test_a_layer_that_the_user_named_stays_whole():
    model = capture.capture(_net(), (X,)).model

    changed = LowRank(energy=0.99).apply(model, dataclasses.replace(WORK, keep=("linear",)))

    assert [one.layer for one in changed.stored_weights] == ["4"]
    assert len(_linears(changed.program)) == 4


def test_the_work_of_a_call_really_falls():
    model = capture.capture(_net(), (X,)).model

    before, after = counts.cost_of(model, [X]), counts.cost_of(LowRank(energy=0.99).apply(model, WORK), [X])

    rows = 4 * 6
    assert before.flops - after.flops == 2 * rows * (64 * 96 - 8 * (64 + 96) + 96 * 10 - 2 * (96 + 10))
    assert after.weight_bytes < before.weight_bytes


def test_the_factors_are_the_best_of_their_rank():
    weight = _of_rank(32, 48, 40)
    outer, inner = factors(weight, 0.5)
    rank = outer.shape[1]

    values = torch.linalg.svdvals(weight.double())

    lost = (weight.double() - outer.double() @ inner.double()).square().sum()
    torch.testing.assert_close(lost, values[rank:].square().sum(), rtol=1e-4, atol=0)
    assert values[:rank].square().sum() >= 0.5 * values.square().sum() > values[: rank - 1].square().sum()


def test_weights_that_two_layers_share_are_split_once():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 64, bias=False)
            self.layer.weight.data = _of_rank(4, 64, 64)

        def forward(self, x):
            return self.layer(torch.relu(self.layer(x)))

    net = Twice().eval()
    changed = LowRank(energy=0.999).apply(capture.capture(net, (X,)).model, WORK)

    assert len(changed.program.state_dict) == 2
    with torch.no_grad():
        torch.testing.assert_close(eager.run_flat(changed.program, [X])[0], net(X), rtol=1e-3, atol=1e-1)


@pytest.mark.parametrize("weight", [torch.eye(64), torch.zeros(64, 64)], ids=["full rank", "zeros"])
def test_a_layer_of_full_rank_or_none_is_left_alone(weight):
    net = nn.Linear(64, 64).eval()
    net.weight.data = weight

    with pytest.raises(NotApplicable, match="99% of its weights' energy"):
        LowRank(energy=0.99).apply(capture.capture(net, (X,)).model, WORK)


@pytest.mark.parametrize("energy", [0, 1, 1.5, -0.1])
def test_an_impossible_share_of_energy_is_refused(energy):
    with pytest.raises(UsageError, match="between 0 and 1"):
        LowRank(energy=energy)
