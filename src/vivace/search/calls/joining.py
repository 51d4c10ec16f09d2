"""Calls of few samples put together, so that an original that does not care answers more of the data in its time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vivace.search.calls.inputs import shapes_of
from vivace.search.calls.mix import Call

MOST_TOGETHER = 16
"""Samples in a joined call."""
JOINED_BYTES = 1e9
"""Of activations in a joined call at the most."""
WORTHWHILE = 0.7
"""A sample in a joined call must take less than this share of its time alone."""
Axes = tuple[int | None, ...]


@dataclasses.dataclass(frozen=True)
class Joining:
    """How many calls are put together along the batch axes of their inputs; 1 joins nothing.

    Only what the original answers for judging is joined: candidates answer calls as the user makes them.

    >>> joining = Joining(2, (0,), (0,))
    >>> calls = [[torch.full((1, 2), float(n))] for n in range(3)]
    >>> [call[0].shape[0] for call in joining.joined(calls)]
    [2, 1]
    >>> answers = [[leaf * 10 for leaf in call] for call in joining.joined(calls)]
    >>> [answer[0].tolist() for answer in joining.parted(answers, [1, 1, 1])]
    [[[0.0, 0.0]], [[10.0, 10.0]], [[20.0, 20.0]]]
    """

    count: int
    inputs: Axes
    outputs: Axes

    def joined(self, calls: Sequence[Sequence[Tensor]]) -> Iterator[list[Tensor]]:
        """Runs of at most `count` calls of the same shapes, each as one call."""
        run: list[Sequence[Tensor]] = []
        for leaves in calls:
            if run and (len(run) == self.count or not self._are_alike(run[0], leaves)):
                yield self.as_one(run)
                run = []
            run.append(leaves)
        if run:
            yield self.as_one(run)

    def parted(self, answers: Sequence[Sequence[Tensor]], sizes: Sequence[int]) -> Iterator[list[Tensor]]:
        """The answer to each call of so many samples, out of the answers to the joined calls."""
        waiting = iter(sizes)
        for answer in answers:
            axes = [axis or 0 for axis in self.outputs]
            start, total = 0, answer[0].shape[axes[0]]
            while start < total:
                size = next(waiting)
                yield [leaf.narrow(axis, start, size) for leaf, axis in zip(answer, axes, strict=True)]
                start += size

    def _are_alike(self, one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
        shared = [(a, b) for a, b, axis in zip(one, other, self.inputs, strict=True) if axis is None]
        return shapes_of(one) == shapes_of(other) and all(torch.equal(a, b) for a, b in shared)

    def as_one(self, run: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """Calls as one call; inputs without a batch axis are the first one's."""
        return [
            leaves[0] if axis is None else torch.cat(leaves, dim=axis)
            for leaves, axis in zip(zip(*run, strict=True), self.inputs, strict=True)
        ]


def joining_of(
    calls: Sequence[Call],
    inputs: Axes,
    outputs: Axes,
    ask: Callable[[list[Call], list[Call]], Mapping[str, Any]],
    seconds: float,
    most: int = MOST_TOGETHER,
) -> tuple[Joining, float]:
    """The joining that pays, tried on some of the calls, and seconds of one call then; else none, and `seconds`.

    A joined call holds `most` samples at the most.

    `ask` takes calls and the one that they make together, and says whether their answers agree ("agrees") and how long
    both ways take ("alone_seconds", "joined_seconds").
    """
    none = Joining(1, inputs, outputs)
    if not calls or not outputs or None in outputs:
        return none, seconds
    sizes = [leaf.shape[axis] for leaf, axis in zip(calls[0], inputs, strict=True) if axis is not None]
    count = min(len(calls), most // sizes[0]) if sizes else 1
    if count < 2:
        return none, seconds
    joining, alone = Joining(count, inputs, outputs), list(calls[:count])
    joined = list(joining.joined(alone))
    if len(joined) > 1:
        return none, seconds
    found = ask(alone, joined)
    if not found["agrees"] or found["joined_seconds"] > WORTHWHILE * found["alone_seconds"]:
        return none, seconds
    return joining, found["joined_seconds"] / count
