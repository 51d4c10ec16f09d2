"""Calls in several shapes: the user's examples of each, checked, and calls dealt among them by their weights."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from vivace.core.errors import UnsupportedModel, UsageError
from vivace.core.signature import Signature
from vivace.core.structure import Structure
from vivace.core.workload import Mix
from vivace.data.samples import StoredCalls
from vivace.measure.arm import HELD_OUT
from vivace.runtimes.calls import dtype_name, leaf_names
from vivace.search.calls.inputs import TIMING_CALLS, perturbed, shapes_of

Call = list[Tensor]


@dataclasses.dataclass(frozen=True)
class Examples:
    """One example call for each shape, with the share of all calls that has it; most workloads have one."""

    calls: tuple[Call, ...]
    weights: tuple[float, ...]
    call: Structure
    positional: int

    @property
    def main(self) -> Call:
        """The example of the most frequent shape."""
        return self.calls[self.weights.index(max(self.weights))]

    @property
    def by_weight(self) -> list[Call]:
        """The most frequent shape's example, then the others'."""
        order = sorted(range(len(self.calls)), key=lambda number: -self.weights[number])
        return [self.calls[number] for number in order]

    @property
    def is_mixed(self) -> bool:
        """Whether calls come in several shapes."""
        return len(self.calls) > 1

    @property
    def varying(self) -> list[frozenset[int]]:
        """For each flat input the dimensions in which shapes differ."""
        return [
            frozenset(axis for axis, sizes in enumerate(zip(*shapes, strict=True)) if len(set(sizes)) > 1)
            for shapes in zip(*map(shapes_of, self.calls), strict=True)
        ]

    def name(self, number: int) -> str:
        """A shape for people: each input with its dimensions.

        >>> import torch
        >>> from vivace.core.structure import flatten
        >>> _, call = flatten({"x": torch.zeros(1, 3)}, torch.is_tensor)
        >>> Examples(([torch.zeros(1, 3)], [torch.zeros(1, 5)]), (0.5, 0.5), call, 1).name(1)
        'x[1, 5]'
        """
        named = zip(leaf_names(self.call), self.calls[number], strict=True)
        return ", ".join(f"{name}{list(leaf.shape)}" for name, leaf in named)


def examples_of(stored: StoredCalls) -> Examples:
    """The examples that were stored, one a shape."""
    weights = stored.mix.weights if stored.mix is not None else (1.0,)
    return Examples(tuple(stored), weights, stored.call, stored.positional)


def check_alike(calls: Sequence[tuple[Call, Structure, int]]) -> None:
    """Raise UsageError where examples differ in more than shapes, or not even in them."""
    first, structure, positional = calls[0]
    for number, (leaves, own, by_position) in enumerate(calls):
        if (own, by_position) != (structure, positional):
            raise UsageError(
                f"entry {number} of mix has other arguments or constants than entry 0; give the same arguments, by "
                "position or by name, in every entry"
            )
        for name, leaf, want in zip(leaf_names(structure), leaves, first, strict=True):
            if leaf.dtype != want.dtype:
                raise UsageError(
                    f"entry {number} of mix has {name} of dtype {dtype_name(leaf.dtype)}; entry 0 has "
                    f"{dtype_name(want.dtype)}: give one dtype in all"
                )
            if leaf.dim() != want.dim():
                raise UsageError(
                    f"entry {number} of mix has {name} of shape {list(leaf.shape)}; entry 0 has {list(want.shape)}: "
                    "give the same number of dimensions in all"
                )
    seen: dict[Any, int] = {}
    for number, (leaves, _, _) in enumerate(calls):
        same = seen.setdefault(tuple(shapes_of(leaves)), number)
        if same != number:
            raise UsageError(
                f"entries {same} and {number} of mix have the same shapes; give each once, with the sum of the weights"
            )


def check_accepted(examples: Examples, signature: Signature, note: str) -> None:
    """Raise UnsupportedModel where the captured program does not take one of the shapes; `note` says what was lost."""
    for number, leaves in enumerate(examples.calls):
        for spec, leaf in zip(signature.inputs, leaves, strict=True):
            problem = spec.problem_with(dtype_name(leaf.dtype), leaf.shape)
            if problem:
                raise UnsupportedModel(
                    f"the captured graph does not take {examples.name(number)}, which is in the mix: {problem}"
                    f"{f' ({note})' if note else ''}. Optimize for one shape (inputs=...), or make the model free in it"
                )


def dealt(weights: Sequence[float], calls: int) -> list[int]:
    """How many of `calls` calls have each shape: by the largest remainders, and at least one each.

    >>> dealt([0.7, 0.3], 12), dealt([0.99, 0.01], 12)
    ([8, 4], [11, 1])
    """
    quotas = [weight * calls for weight in weights]
    counts = [math.floor(quota) for quota in quotas]
    by_remainder = sorted(range(len(counts)), key=lambda shape: counts[shape] - quotas[shape])
    for shape in by_remainder[: calls - sum(counts)]:
        counts[shape] += 1
    while 0 in counts:
        counts[counts.index(max(counts))] -= 1
        counts[counts.index(0)] += 1
    return counts


def interleaved(counts: Sequence[int]) -> list[int]:
    """The shapes in an order in which each is spread evenly.

    >>> interleaved([4, 2])
    [0, 1, 0, 0, 1, 0]
    """
    places = [((place + 0.5) / count, shape) for shape, count in enumerate(counts) for place in range(count)]
    return [shape for _, shape in sorted(places)]


def mixed(
    pools: Sequence[Sequence[Sequence[Tensor]]], weights: Sequence[float]
) -> tuple[list[Sequence[Tensor]], Mix | None]:
    """The calls that arms are timed with, from a pool of calls for each shape; a single pool as it is.

    A walk of TIMING_CALLS - HELD_OUT calls (more where there are more shapes) has the shapes by their weights, evenly
    spread; HELD_OUT further calls follow, which arms hold out.
    """
    if len(pools) == 1:
        return list(pools[0]), None
    length = max(TIMING_CALLS - HELD_OUT, len(pools) + len(pools) % 2)
    walk = interleaved(dealt(weights, length))
    order = [*walk, *walk[:HELD_OUT]]
    taken = [0] * len(pools)
    calls = []
    for shape in order:
        calls.append(pools[shape][taken[shape] % len(pools[shape])])
        taken[shape] += 1
    return calls, Mix(tuple(order), tuple(weights))


def made(examples: Examples, count: int) -> list[list[Call]]:
    """Calls made from the examples, in three parts of about `count` distinct ones for calibrating, selecting and
    confirming; each part holds every shape, evenly spread by the weights. The second begins with the example itself."""
    counts = [count]
    if examples.is_mixed:
        counts = [1 + own for own in dealt(examples.weights, max(count, len(examples.calls)))]
    pools = [perturbed(leaves, 3 * own) for leaves, own in zip(examples.calls, counts, strict=True)]
    parts = (
        [pool[2::3] for pool in pools],
        [[pool[0], *pool[1::3][1:]] for pool in pools],
        [pool[::3][1:] for pool in pools],
    )
    return [_spread(part) for part in parts]


def _spread(pools: Sequence[Sequence[Call]]) -> list[Call]:
    waiting = [iter(pool) for pool in pools]
    return [next(waiting[shape]) for shape in interleaved([len(pool) for pool in pools])]
