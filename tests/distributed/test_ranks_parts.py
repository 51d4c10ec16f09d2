"""Batches divided among ranks: every sample once, whatever the number of ranks, with the masks of one process."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from vivace.core.errors import UsageError
from vivace.distributed.draws import Draws, WholeDraws
from vivace.distributed.parts import Part, cut
from vivace.distributed.sharding import blocks_of


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("rows", [1, 4, 7, 16])
def test_parts_hold_every_row_once_and_their_shares_are_one(rows: int, count: int) -> None:
    parts = [Part.of(rows, number, count) for number in range(count)]
    counted = [row for part in parts if part.counts for row in range(part.start, part.start + part.rows)]

    assert counted == list(range(rows))
    assert sum(part.share for part in parts) == pytest.approx(1.0)
    assert all(part.rows >= 1 for part in parts)


def test_a_cut_takes_the_rows_of_every_tensor_and_leaves_the_rest() -> None:
    batch = {"x": torch.arange(10).reshape(5, 2), "y": (torch.arange(5), "a name")}

    mine = cut(batch, 1, 2).batch

    assert mine["x"].tolist() == [[6, 7], [8, 9]]
    assert (mine["y"][0].tolist(), mine["y"][1]) == ([3, 4], "a name")


def test_tensors_of_different_lengths_cannot_be_divided() -> None:
    with pytest.raises(UsageError, match=r"first lengths \[3, 4\]; allowed is one length"):
        cut((torch.zeros(3), torch.zeros(4)), 0, 2)


def several(x: torch.Tensor) -> Any:
    """Draws of each kind for the rows of x."""
    heads = x.repeat_interleave(3, 0)  # rows times heads, as attention has it
    return (
        functional.dropout(x, 0.4), functional.dropout(heads, 0.4), torch.rand_like(x), torch.randn(len(x), 3),
        functional.dropout1d(x[:, :, None].expand(-1, -1, 5), 0.5), functional.dropout(x.t(), 0.4).t(),
    )  # fmt: skip


@pytest.mark.parametrize(("rows", "count"), [(8, 2), (7, 3), (2, 4)])
def test_ranks_draw_the_random_numbers_of_one_process(rows: int, count: int) -> None:
    x = torch.randn(rows, 11)
    torch.manual_seed(3)
    whole = several(x)
    after = torch.rand(1)

    for number in range(count):
        part = Part.of(rows, number, count)
        torch.manual_seed(3)
        with WholeDraws(part):
            mine = several(x[part.start : part.start + part.rows])
        for one, other in zip(mine, whole, strict=True):
            times = len(other) // rows
            assert torch.equal(one, other[part.start * times : (part.start + part.rows) * times])
        assert torch.equal(torch.rand(1), after)


def test_a_draw_that_is_not_the_batchs_is_the_same_on_every_rank() -> None:
    torch.manual_seed(3)
    with WholeDraws(Part.of(8, 1, 2)):
        found = torch.rand(3)
    torch.manual_seed(3)

    assert torch.equal(found, torch.rand(3))


class Noisy(nn.Module):
    """Dropout as a layer, and noise outside of one."""

    def __init__(self, noise: float) -> None:
        super().__init__()
        self.noise = noise
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        dropped = self.drop(x)
        return dropped + self.noise * torch.randn_like(x) if self.noise else dropped


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_every_step_draws_as_one_process_does_whether_in_layers_or_outside(noise: float) -> None:
    x, part = torch.randn(6, 4), Part.of(6, 1, 2)
    torch.manual_seed(5)
    whole = Noisy(noise)
    wanted = [whole(x)[3:] for _ in range(3)]
    torch.manual_seed(5)
    model = Noisy(noise)
    draws = Draws(model)

    found = []
    for _ in range(3):
        with draws.of(part):
            found.append(model(x[3:]))

    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


def test_what_is_gathered_by_itself_is_a_member_of_a_list_and_no_part_of_another() -> None:
    block = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    model = nn.ModuleDict({"blocks": nn.ModuleList([nn.ModuleDict({"inner": block}), nn.Linear(2, 2)])})

    assert [name for name, _ in blocks_of(model)] == ["blocks.0", "blocks.1"]


def test_layers_that_share_a_parameter_are_gathered_together() -> None:
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, 7, bias=False))
    model[2].weight = model[0].weight

    assert [name for name, _ in blocks_of(model)] == ["1"]
