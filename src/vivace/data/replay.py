"""Replays the order of a training's epochs through every policy: how often each would have held a sample."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from vivace.data.replacement import POLICIES, hits, policy_of

EPOCHS = 4
"""Epochs that are replayed, of which the first only fills."""
MOST_SAMPLES = 4096
"""Of more samples than this, only every so-manieth is followed, in a cache that is as much smaller (SHARDS)."""


@dataclasses.dataclass(frozen=True)
class HitRate:
    """The share of accesses that a policy held, after the epoch that fills it. `accesses` were counted."""

    policy: str
    share: float
    accesses: int


def replayed(
    name: str, order: Callable[[int], Sequence[int]], samples: int, capacity: int, epochs: int = EPOCHS
) -> HitRate:
    """The hit rate of one policy on the epochs that `order` gives the samples of, each exactly once an epoch.

    What many samples would take long for is scaled down: samples whose number leaves no remainder are followed, in
    proportionally less room.

    Source: Waldspurger et al., Efficient MRC Construction with SHARDS, FAST 2015.

    >>> replayed("pinned", lambda epoch: range(10), 10, 5)
    HitRate(policy='pinned', share=0.5, accesses=30)
    """
    step = -(-samples // MOST_SAMPLES)
    followed = -(-samples // step)

    def scaled(epoch: int) -> list[int]:
        return [number // step for number in order(epoch) if number % step == 0]

    policy = policy_of(name, max(1, round(capacity * followed / samples)), followed, scaled)
    hits(policy, scaled(0))
    found = sum(hits(policy, scaled(epoch)) for epoch in range(1, epochs))
    accesses = followed * (epochs - 1)
    return HitRate(name, found / accesses, accesses)


def replay(order: Callable[[int], Sequence[int]], samples: int, capacity: int) -> tuple[HitRate, ...]:
    """The hit rate of every policy."""
    return tuple(replayed(name, order, samples, capacity) for name in POLICIES)
