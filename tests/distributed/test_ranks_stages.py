"""What of a model can be cut: chains into stages, pairs of linear layers into parts."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from vivace.core.errors import NotApplicable, UsageError
from vivace.distributed.pipelining.pipeline import inputs_of, rows_of
from vivace.distributed.pipelining.stages import balanced, chain_of, tied_between, why_no_chain
from vivace.distributed.tensor_plan import linear_pairs
from vivace.techniques.parallel.pipeline_parallel import TIMED, costs_of, refuse
from vivace.techniques.parallel.tensor_parallel import TensorParallel

X = torch.randn(4, 6)


def test_the_cheapest_cut_is_the_one_that_trying_all_finds() -> None:
    costs = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0]

    for count in range(1, 6):
        cuts = [*balanced(costs, count), len(costs)]
        dearest = max(sum(costs[a:b]) for a, b in itertools.pairwise(cuts))
        every = itertools.combinations(range(1, len(costs)), count - 1)
        best = min(max(sum(costs[a:b]) for a, b in itertools.pairwise([0, *inner, len(costs)])) for inner in every)
        assert (len(cuts), dearest) == (count + 1, best)


class Residual(nn.Module):
    """Two linear layers and what goes around them."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.act, self.down = nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(self.act(self.up(x)))


def test_a_chain_is_taken_apart_as_finely_as_it_goes() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Sequential(Residual(), nn.ReLU()), nn.Linear(6, 2))

    assert [name for name, _ in chain_of(model, lambda: model(X))] == ["0", "1.0", "1.1", "2"]


def test_a_model_that_does_something_after_its_parts_is_one_piece_and_says_where() -> None:
    model = Residual()

    assert [name for name, _ in chain_of(model, lambda: model(X))] == [""]
    told = why_no_chain(model, lambda: model(X))
    assert told == (
        "the model gives something else than its last module, down, gave; put what follows down into a module, or "
        "into the loss"
    )


class Written(nn.Module):
    """A network as it is written by hand: it looks up, adds, and then calls one module after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(10, 6), nn.Embedding(5, 6)
        self.blocks = nn.ModuleList([Residual(), Residual()])
        self.head = nn.Linear(6, 10, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.tokens(ids) + self.places(torch.arange(ids.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def test_what_a_network_computes_before_its_chain_is_the_first_piece() -> None:
    model, ids = Written(), torch.randint(10, (3, 5))

    chain = chain_of(model, lambda: model(ids))

    assert [name for name, _ in chain] == ["before blocks.0", "blocks.0", "blocks.1", "head"]
    assert set(chain[0][1].parameters()) == {model.tokens.weight, model.places.weight}
    assert torch.equal(nn.Sequential(*(module for _, module in chain))(ids[:2]), model(ids[:2]))


def test_parameters_of_two_stages_are_found_by_their_names() -> None:
    model, ids = Written(), torch.randint(10, (3, 5))
    before, *rest = (module for _, module in chain_of(model, lambda: model(ids)))

    found = tied_between(model, [before, nn.Sequential(*rest)])

    assert found == {"tokens.weight and head.weight": model.tokens.weight}
    assert not tied_between(model, [nn.Sequential(before, *rest)])


def test_a_loss_tells_what_it_calls_its_model_with() -> None:
    given = inputs_of(nn.Linear(6, 2), lambda model, batch: model(batch[0] * 2).sum(), (X, 0))

    assert torch.equal(given, X * 2)
    with pytest.raises(UsageError, match="with one tensor"):
        inputs_of(nn.Linear(6, 2), lambda model, batch: model(batch, batch).sum(), X)
    assert torch.equal(rows_of((X, "name"), 1, 2)[0], X[1:3])


def test_what_sees_micro_batches_differently_is_refused() -> None:
    with pytest.raises(NotApplicable, match=r"^1 normalizes over the batch"):
        refuse(nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)))


def test_batch_normalization_that_is_frozen_sees_no_other_rows() -> None:
    refuse(nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6).eval()))

    with pytest.raises(NotApplicable, match=r"^0 normalizes over the batch.*freeze it"):
        refuse(nn.Sequential(nn.BatchNorm1d(6, track_running_stats=False).eval()))


class Gated(nn.Module):
    """A gate: the product of two branches."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(nn.functional.silu(self.gate(x)) * self.up(x))


def pairs_of(model: nn.Module, x: torch.Tensor = X) -> list[str]:
    return [str(pair) for pair in linear_pairs(model, lambda one: one(x).sum())]


def test_pairs_of_linear_layers_are_found_through_what_acts_on_each_element() -> None:
    assert pairs_of(nn.Sequential(Residual(), Gated())) == ["0.up with 0.down (8)", "1.gate and 1.up with 1.down (8)"]
    assert pairs_of(Residual(), torch.randn(2, 3, 6)) == ["up with down (8)"]


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 2)),
        nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 2)),
        nn.Sequential(nn.Linear(6, 8), nn.Softmax(-1), nn.Linear(8, 2)),
        nn.Linear(6, 2),
    ],
    ids=["normalized", "dropped", "softmax", "single"],
)
def test_layers_with_something_else_between_are_no_pair(model: nn.Module) -> None:
    assert pairs_of(model) == []


def test_a_layer_whose_output_somebody_else_uses_is_in_no_pair() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            wide = self.up(x)
            return self.down(wide.relu()) + wide.sum()

    assert pairs_of(Shared()) == []


def test_a_width_that_does_not_divide_is_told() -> None:
    pairs = linear_pairs(Residual(), lambda model: model(X).sum())

    with pytest.raises(NotApplicable, match="3 processes do not divide the widths of its linear pairs: 8"):
        TensorParallel(3).dividing(pairs)
    with pytest.raises(NotApplicable, match="no two linear layers follow each other"):
        TensorParallel(3).dividing([])


class Noting(nn.Module):
    """Keeps how many rows it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[int] = []
        self.layer = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.rows.append(len(x))
        return self.layer(x)


def test_stages_are_timed_on_as_many_rows_as_a_micro_batch_has() -> None:
    chain = [Noting(), Noting()]

    costs = costs_of(chain, X, 50)

    assert {rows for module in chain for rows in module.rows} == {50}
    assert all(cost > 0 for cost in costs)


class OnCard(torch.Tensor):
    """A tensor that says that it is on a device, of which nothing is here."""

    is_cuda = True


def test_stages_on_a_device_are_timed_to_the_end_of_their_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[int] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append(1))

    costs_of([nn.Linear(6, 6)], X.as_subclass(OnCard), 3)
    costs_of([nn.Linear(6, 6)], X, 3)

    assert len(waits) == TIMED


def test_layers_that_share_a_weight_are_in_no_pair() -> None:
    model = nn.Sequential(*(layer for _ in range(4) for layer in (nn.Linear(6, 6), nn.ReLU())))
    model[2].weight = model[0].weight

    assert pairs_of(model) == ["4 with 6 (6)"]
