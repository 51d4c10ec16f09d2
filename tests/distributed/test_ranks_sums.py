"""Gradients that are summed after the backward pass, also where ranks' rows use different parts of a model."""

from __future__ import annotations

import copy

import torch
from torch import nn

from vivace.distributed.replicas import sum_gradients


class Recorded:
    """A world of which one rank is here: it keeps what that rank would sum."""

    def __init__(self) -> None:
        self.given: list[torch.Tensor] = []

    def sum_over_batch(self, value: torch.Tensor, name: str) -> torch.Tensor:
        self.given.append(value.clone())
        return value


class Summed:
    """A world whose other ranks' sums are known."""

    def __init__(self, *others: Recorded) -> None:
        self.others = others
        self.number = 0

    def sum_over_batch(self, value: torch.Tensor, name: str) -> torch.Tensor:
        self.number += 1
        return value + sum(other.given[self.number - 1] for other in self.others)


def used(model: nn.Module, *names: str) -> nn.Module:
    """A copy of a model of which some layers, by name, have been used for a loss."""
    model = copy.deepcopy(model)
    for name in names:
        model.get_submodule(name)(torch.ones(2, 3)).sum().backward()
    return model


def test_a_layer_that_one_ranks_rows_did_not_use_gets_the_gradient_of_the_others() -> None:
    layers = nn.ModuleDict({name: nn.Linear(3, 2) for name in ("mine", "theirs", "nobodys")})
    here, there = used(layers, "mine"), used(layers, "theirs")
    first, second = Recorded(), Recorded()
    sum_gradients(used(layers, "mine"), first)
    sum_gradients(used(layers, "theirs"), second)

    sum_gradients(here, Summed(second))
    sum_gradients(there, Summed(first))

    wanted = used(layers, "mine", "theirs")
    for name, parameter in wanted.named_parameters():
        for found in (here, there):
            own = found.get_parameter(name).grad
            assert (own is None) == (parameter.grad is None)
            assert own is None or torch.equal(own, parameter.grad)
