"""Whether a dataset gives the same sample whenever it is asked, without drawing from the global generators."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from vivace.training.checkpoint import Generators
from vivace.training.examine import same
from vivace.training.feed import StagedFeed

PROBED = 8
"""Samples that are asked for twice."""


def probes(samples: int) -> list[int]:
    """The numbers of the samples that are looked at, spread over all.

    >>> probes(100)
    [0, 14, 28, 42, 56, 70, 84, 99]
    """
    last = samples - 1
    return sorted({last * place // (PROBED - 1) for place in range(PROBED)})


def why_random(feed: StagedFeed, batches: Sequence[Sequence[int]]) -> str | None:
    """Why samples cannot be read at another time than when they are needed; None when nothing speaks against it.

    Each batch of samples, by their numbers, is asked for twice. The global generators are left as they were.
    """
    before = Generators.now()
    try:
        for numbers in batches:
            if not same(feed.collect(numbers), feed.collect(numbers)):
                what = f"sample {numbers[0]}" if len(numbers) == 1 else f"a batch of {len(numbers)} samples"
                return (
                    f"{what} differs when it is asked for twice: the dataset changes samples at random; do "
                    "that in the job's `augment`, (batch) -> batch, which runs on every batch when it is used"
                )
        drawn = _drawn(before, Generators.now())
        return drawn and (
            f"reading a sample draws from the global generator of {drawn}, which the training's own random numbers "
            "come from too; draw in the job's `augment`, (batch) -> batch, which runs on every batch when it is used"
        )
    finally:
        before.restore()


def _drawn(before: Generators, after: Generators) -> str | None:
    """Whose generator moved."""
    if not torch.equal(before.torch, after.torch):
        return "PyTorch"
    if before.python != after.python:
        return "Python"
    moved = before.numpy[2] != after.numpy[2] or not np.array_equal(before.numpy[1], after.numpy[1])
    return "NumPy" if moved else None
