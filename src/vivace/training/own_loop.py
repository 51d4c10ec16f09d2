"""What a loop that the user writes is given: the accelerated model, optimizer and loader, and the plan's contexts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from vivace.core.measurement import Interval
from vivace.core.plan import Plan
from vivace.core.training.parity import Parity
from vivace.core.training.rig import Feed, Rig
from vivace.training.step import around, train_step


class Batches:
    """The batches of a feed, as a loader gives them: walking it once is one epoch, and each walk is the next one.

    >>> from vivace.testing.tiny_training import job
    >>> from vivace.training.feed import feed_of
    >>> loader = Batches(feed_of(job()))
    >>> len(loader), sum(len(labels) for _, labels in loader), loader.epoch
    (7, 103, 1)
    """

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.epoch = 0

    def __iter__(self) -> Iterator[Any]:
        """The next epoch's batches; the epoch counts once it is walked to its end."""
        yield from self.feed.epoch(self.epoch)
        self.epoch += 1

    def __len__(self) -> int:
        """Batches in an epoch. Raises TypeError where only walking it tells, as an iterable without a length does."""
        steps = self.feed.steps()
        if steps is None:
            raise TypeError("these data have no length; walk the loader to its end")
        return steps


class Prover(Protocol):
    """Proves the step of an own loop again, on a batch; gives its parts back to the original where that fails."""

    def __call__(self, fast: Accelerated, batch: Any) -> Parity:
        """The proof."""
        ...


@dataclasses.dataclass
class Accelerated:
    """The parts of an accelerated training step, for a loop of the user's own.

    `model`, `optimizer`, `loader` and `schedule` (None without one) are what the job's functions made, changed by the
    techniques of `plan`. `parity` is the proof of that plan, None where it is empty; `speedup` compares its steps with
    the original's in fresh pairs of processes, None where the plan was given and not timed. `left_out` says which
    techniques no hand-written loop can hold, a sentence each.
    """

    model: torch.nn.Module
    optimizer: Optimizer
    loader: Batches
    schedule: LRScheduler | None
    plan: Plan
    parity: Parity | None
    speedup: Interval | None
    left_out: tuple[str, ...]
    rig: Rig = dataclasses.field(repr=False)
    prover: Prover = dataclasses.field(repr=False)

    def __iter__(self) -> Iterator[Any]:
        """So that `model, optimizer, loader = vv.accelerate(job)` unpacks it."""
        return iter((self.model, self.optimizer, self.loader))

    def running(self) -> AbstractContextManager[None]:
        """What the loop as a whole runs in: the plan's threads and the like. Use it around the epochs."""
        return around(self.rig.outside)

    def loss(self, batch: Any) -> torch.Tensor:
        """The job's loss of a batch, computed as the plan does it; call `backward()` on it.

        Raises UsageError where the job's loss is no scalar tensor.
        """
        with around(self.rig.around):
            return self.rig.forward(batch)

    def prove(self, batch: Any) -> Parity:
        """Compare the step that the plan takes now, on a batch, with the original's: gradients, buffers, the loss and
        the update, from the weights, the optimizer's state and the attributes that the loop has by now. Call it
        whenever you like, between two steps; all is as it was afterwards, to the bit. It takes about six steps, and the
        memory of the original beside, in float32 and in float64.

        Where the step is not the original's (NOT HELD), a RuntimeWarning names the plan and what is wrong, and `model`,
        `optimizer` and `loss` are the original's from then on, with the weights as they are: `plan` is empty then.
        CANNOT TELL gives the reason.
        """
        return self.prover(self, batch)

    def step(self, batch: Any) -> torch.Tensor:
        """A whole step for those who want it: gradients set to None, loss, backward pass, update. Returns the loss,
        detached. The schedule is the loop's to step.
        """
        with self.running():
            return train_step(self.rig, batch)


def accelerated(
    rig: Rig, plan: Plan, parity: Parity | None, speedup: Interval | None, left_out: tuple[str, ...], prover: Prover
) -> Accelerated:
    """A rig's parts, with what is known of its plan."""
    return Accelerated(
        rig.model, rig.optimizer, Batches(rig.feed), rig.schedule, plan, parity, speedup, left_out, rig, prover
    )  # fmt: skip
