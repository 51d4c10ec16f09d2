"""Random numbers of a part of a batch are those that one process draws for the whole of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

from vivace.distributed.draws import DrawnShapes, WholeDraws, axes_between
from vivace.distributed.parts import Part

WHOLE = torch.arange(5 * 4 * 6 * 8, dtype=torch.float32).reshape(5, 4, 6, 8) / 960
SECOND = Part.of(5, 1, 2)
MINE = WHOLE[SECOND.start :]


def attended(x: torch.Tensor) -> torch.Tensor:
    return functional.scaled_dot_product_attention(x, x + 1, x * x)


CALLS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "dropout": lambda x: functional.dropout(x, 0.4),
    "attention": attended,
    "attention with dropout": lambda x: functional.scaled_dot_product_attention(x, x + 1, x * x, dropout_p=0.3),
    "a coin for each": lambda x: torch.bernoulli(x.clamp(0, 1)),
    "around two tensors": lambda x: torch.normal(x, x + 0.5),
    "made by its size": lambda x: x + torch.rand(x.shape),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_part_draws_what_one_process_draws_for_its_rows(name: str) -> None:
    torch.manual_seed(3)
    whole = CALLS[name](WHOLE)
    torch.manual_seed(3)
    with WholeDraws(SECOND):
        part = CALLS[name](MINE)

    torch.testing.assert_close(part, whole[SECOND.start :], rtol=1e-6, atol=1e-6)


def test_an_attention_without_dropout_draws_nothing() -> None:
    with WholeDraws(SECOND) as draws:
        attended(MINE)

    assert draws.draws == 0


class Recurrent(nn.Module):
    """A recurrence of two layers with dropout between, whose first axis is of steps."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.LSTM(3, 5, 2, dropout=0.4, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)[0]


def drawn_by(model: nn.Module, x: torch.Tensor) -> list[tuple[int, ...]]:
    with DrawnShapes() as drawn:
        model(x)
    return drawn.found


@pytest.mark.parametrize("steps", [4, 8, 12])
def test_steps_that_are_as_many_as_rows_are_not_taken_for_these(steps: int) -> None:
    torch.manual_seed(1)
    model, x, part = Recurrent(), torch.randn(8, steps, 3), Part.of(8, 1, 2)
    axes = axes_between(drawn_by(model, x), drawn_by(model, x[1:]))
    torch.manual_seed(3)
    whole = model(x)

    torch.manual_seed(3)
    with WholeDraws(part, axes):
        mine = model(x[4:])

    torch.testing.assert_close(mine, whole[4:], rtol=1e-6, atol=1e-6)
