"""Operators of strangers' networks in compiled steps: gradients and updates are those of the step in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from native_loops import CACHED, loop_of
from torch import Tensor, nn
from torch.nn import functional

from vivace.core.errors import NotApplicable
from vivace.core.training.job import Training
from vivace.devices import machine
from vivace.testing.tiny_training import CLASSES, Points, job
from vivace.training.examine import examine
from vivace.training.service import equip

pytestmark = pytest.mark.skipif(
    not machine.detect().cxx_compiler, reason="compiled steps need a C++ compiler: install g++"
)


class Net(nn.Module):
    """Three layers, with something between the first and the last."""

    def __init__(self, between: Callable[[Tensor, Net], Tensor]) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(12, 24), nn.Linear(24, 24), nn.Linear(24, CLASSES)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.between(self.first(x), self))
        return found


def places(x: Tensor, net: Net) -> Tensor:
    """Counted and picked by numbers of 32 bits, as RoBERTa numbers its tokens."""
    mask = (x.detach() > 0).int()
    number = torch.cumsum(mask, 1).type_as(mask) * mask
    picked = torch.gather(torch.arange(25).expand(len(x), -1), 1, number.long())
    return x * picked.float() / 24


def columns(x: Tensor, net: Net) -> Tensor:
    """Counted down the rows, which threads share otherwise."""
    return x * torch.cumsum((x.detach() > 0).long(), 0).float() / 16


def heads(x: Tensor, net: Net) -> Tensor:
    """Two heads of keys for four of queries."""
    query = x.view(-1, 4, 2, 3)
    key, value = net.middle(x)[:, :12].view(-1, 2, 2, 3), net.middle(x)[:, 12:].view(-1, 2, 2, 3)
    seen: Tensor = functional.scaled_dot_product_attention(query, key, value, enable_gqa=True, is_causal=True)
    return seen.flatten(1)


def written(x: Tensor, net: Net) -> Tensor:
    """Written over where nobody reads it again, and read before."""
    y = net.middle(x).mul_(0.5)
    kept = torch.sigmoid(y)
    return torch.relu_(net.middle(y.add_(1.0) * kept))


def seen_through_a_view(x: Tensor, net: Net) -> Tensor:
    """What is written over is read afterwards, in another shape."""
    y = net.middle(x)
    other = y.view(-1, 4, 6)
    y.mul_(2.0)
    found: Tensor = other.flatten(1)
    return found


def rectified(x: Tensor, net: Net) -> Tensor:
    """The same by a rectifier, whose answer is read too."""
    found = net.middle(x)
    other = found.view(-1, 4, 6)
    answer: Tensor = torch.relu_(found) + other.flatten(1)
    return answer


def shifted(x: Tensor, net: Net) -> Tensor:
    """Numbers that are written into by slices, as T5 moves its labels."""
    numbers = torch.zeros(x.shape, dtype=torch.int64)
    numbers[:, 1:] = (x.detach() > 0)[:, :-1]
    numbers[:, 0] = 3
    numbers.masked_fill_(numbers == 3, 2)
    y = net.middle(x)
    return y * numbers.float()


BETWEEN: dict[str, Callable[[Tensor, Net], Tensor]] = {
    "places": places, "columns": columns, "heads": heads, "written": written, "shifted": shifted,
    "seen": seen_through_a_view, "rectified": rectified,
    "roll": lambda x, net: torch.roll(x.view(-1, 4, 6), (1, -2), (1, 2)).flatten(1) * x,
    "roll rows": lambda x, net: x + 0.1 * torch.roll(net.middle(x), 1, 0),
    "literal": lambda x, net: torch.where(x > 0, x, torch.tensor(0.25)) + torch.cat([torch.tensor([]), x[:, :1]], 1),
    "pad": lambda x, net: functional.pad(x, (1, -1), value=0.5) + functional.pad(net.middle(x), (-2, 2)),
    "triangle": lambda x, net: (x.view(-1, 4, 6).tril() + x.view(-1, 4, 6).triu(1)).flatten(1),
    "from one": lambda x, net: 1.0 - net.middle(torch.rsub(x, 1, alpha=2)),
    "both": lambda x, net: x * ((x.detach() > -1) & (x.detach() < 1)).float(),
    "picked": lambda x, net: x * net.middle(x).gather(1, torch.arange(24).flip(0).expand(len(x), 24) // 2),
    "slices": lambda x, net: x + net.middle(x).index_select(1, torch.arange(24) // 3),
    "numbered": lambda x, net: x + net.middle(x)[:, torch.arange(24).flip(0) // 2],
    "windows": lambda x, net: net.middle(x).unfold(1, 4, 6).flatten(1).repeat(1, 2)[:, :24] + x,
    "functions": lambda x, net: torch.atan2(x, 2 + x.cos()) + torch.asinh(net.middle(x)) - torch.log2(2 + x * x),
    "first ones": lambda x, net: x * x.topk(3, -1).values.sum(1, True) + net.middle(x).max(1, True).values,
    "lines": lambda x, net: x.view(-1, 4, 6).softmax(1).flatten(1) + net.middle(x) / x.std(1, keepdim=True),
    "ones": lambda x, net: x * x.new_ones(24) + net.middle(x),
}  # fmt: skip


def wrong(given: Training) -> list[str]:
    """What of six steps, one by one and in one go, is not as in float64."""
    found = examine(given, lambda rig: equip(rig, given, CACHED), steps=6)
    return [str(one) for one in found.agreements if not one.holds]


@pytest.mark.parametrize("name", BETWEEN)
def test_operators_make_the_gradients_of_the_original(name: str) -> None:
    assert wrong(job(model=lambda: Net(BETWEEN[name]), evaluate=None)) == []


class Recurrent(nn.Module):
    """A gated unit, whose steps write into parts of a product."""

    def __init__(self) -> None:
        super().__init__()
        self.cells, self.last = nn.GRU(3, 9, batch_first=True), nn.Linear(9, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.cells(x.view(-1, 4, 3))[0][:, -1])
        return found


class Patches(nn.Module):
    """Windows side by side, and of one place."""

    def __init__(self) -> None:
        super().__init__()
        self.cut, self.mix = nn.Conv2d(3, 8, (2, 3), stride=(2, 3)), nn.Conv2d(8, 5, 1, bias=False)
        self.last = nn.Linear(5 * 6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(torch.relu(self.mix(torch.tanh(self.cut(x)))).flatten(1))
        return found


class Normalized(nn.Module):
    """Batch normalization, which counts its batches, and a mean of its own that is read before it is written."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(12, 20), nn.BatchNorm1d(20), nn.Linear(20, CLASSES)
        self.register_buffer("mean", torch.zeros(12))

    mean: Tensor

    def forward(self, x: Tensor) -> Tensor:
        apart = x - self.mean
        self.mean.mul_(0.9).add_(x.detach().mean(0), alpha=0.1)
        found: Tensor = self.last(torch.relu(self.norm(self.first(apart))))
        return found


class Reading(Net):
    """A buffer that is read after it was written."""

    def __init__(self) -> None:
        super().__init__(lambda x, net: x)
        self.register_buffer("count", torch.zeros(()))

    count: Tensor

    def forward(self, x: Tensor) -> Tensor:
        self.count.add_(1.0)
        found: Tensor = super().forward(x) / self.count
        return found


@pytest.mark.parametrize(
    ("model", "shape"),
    [(Recurrent, (12,)), (Patches, (3, 6, 6)), (Normalized, (12,)), (Reading, (12,))],
    ids=["gated", "cut", "norm", "read again"],
)
def test_gated_units_windows_side_by_side_and_buffers_make_the_gradients_of_the_original(
    model: Any, shape: tuple[int, ...]
) -> None:
    assert wrong(job(model=model, data=Points(80, shape), evaluate=None)) == []


class Overlapping(nn.Module):
    """Windows that overlap, or leave something out."""

    def __init__(self, window: int, stride: int) -> None:
        super().__init__()
        self.cut, self.last = nn.Conv2d(3, 2, window, stride=stride), nn.LazyLinear(CLASSES)
        self.last(self.cut(torch.zeros(1, 3, 6, 6)).flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.cut(x).flatten(1))
        return found


class Spoiling(Net):
    """What writes into its batch."""

    def __init__(self) -> None:
        super().__init__(lambda x, net: x)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = super().forward(x * 1.0) + 0.0 * x.mul_(0.5).sum()
        return found


@pytest.mark.parametrize(
    ("model", "shape", "reason"),
    [
        (lambda: Overlapping(3, 1), (3, 6, 6), "aten.convolution"),
        (lambda: Overlapping(4, 4), (3, 6, 6), "aten.convolution"),
        (Spoiling, (12,), "writes into a weight or its batch|aten.mul_"),
    ],
    ids=["overlapping", "left over", "batch"],
)
def test_what_has_no_such_form_is_refused(model: Any, shape: tuple[int, ...], reason: str) -> None:
    given = job(model=model, data=Points(80, shape), evaluate=None)

    with pytest.raises(NotApplicable, match=reason):
        loop_of(given, CACHED).advance(1)
