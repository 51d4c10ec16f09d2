"""Replacement policies: which samples a cache that is smaller than the data holds. Numbers in, numbers out, no storage.

A policy is told every access, in order. It says whether the sample was held, and which one it dropped for it.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from vivace.core.errors import UsageError, unknown_name


class Access(NamedTuple):
    """What came of asking for a sample: whether it was held, and what was dropped to hold it."""

    held: bool
    dropped: int | None = None


HIT, MISS = Access(True), Access(False)


class Policy(Protocol):
    """Decides what a cache of `capacity` samples holds."""

    capacity: int

    def access(self, number: int) -> Access:
        """Take in that sample `number` is asked for now."""
        ...

    def __contains__(self, number: int) -> bool:
        """Whether it is held."""
        ...


class Pinned:
    """Holds the same samples for ever, spread evenly over the numbers: what training in epochs makes the optimum.

    In an epoch every sample is asked for once, so that what is taken in during an epoch cannot be asked for again in
    it: no policy hits more often than `capacity` times an epoch, and this one does. Nothing is ever written after the
    first fill, and the misses are spread over the epoch.

    Source: Mohan et al., Analyzing and Mitigating Data Stalls in DNN Training, VLDB 2021, section 4.1 (MinIO).

    >>> [number for number in range(6) if number in Pinned(3, 6)]
    [1, 3, 5]
    """

    def __init__(self, capacity: int, samples: int) -> None:
        self.capacity = _checked(capacity)
        self._numbers = frozenset(spread(capacity, samples))

    def access(self, number: int) -> Access:
        """Held for ever, or never."""
        return HIT if number in self._numbers else MISS

    def __contains__(self, number: int) -> bool:
        return number in self._numbers


class Fifo:
    """Drops what was taken in first."""

    def __init__(self, capacity: int) -> None:
        self.capacity = _checked(capacity)
        self._held: OrderedDict[int, None] = OrderedDict()

    def access(self, number: int) -> Access:
        """A hit changes nothing."""
        return HIT if number in self._held else _taken_in(self._held, number, self.capacity)

    def __contains__(self, number: int) -> bool:
        return number in self._held


class Lru:
    """Drops what was asked for the longest time ago."""

    def __init__(self, capacity: int) -> None:
        self.capacity = _checked(capacity)
        self._held: OrderedDict[int, None] = OrderedDict()

    def access(self, number: int) -> Access:
        """A hit makes it the newest."""
        if number in self._held:
            self._held.move_to_end(number)
            return HIT
        return _taken_in(self._held, number, self.capacity)

    def __contains__(self, number: int) -> bool:
        return number in self._held


class Lfu:
    """Drops what was asked for least often since it was taken in; of several, what was longest not asked for."""

    def __init__(self, capacity: int) -> None:
        self.capacity = _checked(capacity)
        self._counts: dict[int, int] = {}
        self._by_count: dict[int, OrderedDict[int, None]] = {}
        self._least = 1

    def access(self, number: int) -> Access:
        """A hit counts."""
        count = self._counts.get(number, 0)
        if count:
            del self._by_count[count][number]
            if not self._by_count[count] and self._least == count:
                self._least += 1
            self._count(number, count + 1)
            return HIT
        dropped = None
        if len(self._counts) == self.capacity:
            dropped, _ = self._by_count[self._least].popitem(last=False)
            del self._counts[dropped]
        self._least = 1
        self._count(number, 1)
        return Access(False, dropped)

    def _count(self, number: int, count: int) -> None:
        self._counts[number] = count
        self._by_count.setdefault(count, OrderedDict())[number] = None

    def __contains__(self, number: int) -> bool:
        return number in self._counts


class Arc:
    """Balances recency and frequency by what it dropped and was asked for again: T1 and T2 are held, B1 and B2 ghosts.

    Source: Megiddo and Modha, ARC: A Self-Tuning, Low Overhead Replacement Cache, FAST 2003, figure 4.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = _checked(capacity)
        self.p = 0.0
        self.t1: OrderedDict[int, None] = OrderedDict()
        self.t2: OrderedDict[int, None] = OrderedDict()
        self.b1: OrderedDict[int, None] = OrderedDict()
        self.b2: OrderedDict[int, None] = OrderedDict()

    def access(self, number: int) -> Access:
        """Cases I to IV of the figure."""
        if number in self.t1 or number in self.t2:
            self.t1.pop(number, None)
            self.t2.pop(number, None)
            self.t2[number] = None
            return HIT
        if number in self.b1:
            return self._returns(number, self.b1, max(len(self.b2) / len(self.b1), 1.0))
        if number in self.b2:
            return self._returns(number, self.b2, -max(len(self.b1) / len(self.b2), 1.0))
        dropped = self._make_room()
        self.t1[number] = None
        return Access(False, dropped)

    def _returns(self, number: int, ghosts: OrderedDict[int, None], change: float) -> Access:
        self.p = min(float(self.capacity), max(0.0, self.p + change))
        dropped = self._replace(number in self.b2)
        del ghosts[number]
        self.t2[number] = None
        return Access(False, dropped)

    def _make_room(self) -> int | None:
        first, everything = len(self.t1) + len(self.b1), len(self.t1) + len(self.b1) + len(self.t2) + len(self.b2)
        if first == self.capacity:
            if len(self.t1) == self.capacity:
                return self.t1.popitem(last=False)[0]
            self.b1.popitem(last=False)
            return self._replace(False)
        if everything < self.capacity:
            return None
        if everything == 2 * self.capacity:
            self.b2.popitem(last=False)
        return self._replace(False)

    def _replace(self, is_in_b2: bool) -> int | None:
        if len(self.t1) + len(self.t2) < self.capacity:
            return None
        from_first = bool(self.t1) and (len(self.t1) > self.p or (is_in_b2 and len(self.t1) == self.p))
        held, ghosts = (self.t1, self.b1) if from_first or not self.t2 else (self.t2, self.b2)
        dropped, _ = held.popitem(last=False)
        ghosts[dropped] = None
        return dropped

    def __contains__(self, number: int) -> bool:
        return number in self.t1 or number in self.t2


class Belady:
    """The optimum: drops what is asked for again last, or does not take in what comes later than all that is held.

    `next_uses` gives for every access, in order, when the same sample is asked for again (`next_uses_of`,
    `epoch_next_uses`); infinity for never.

    Source: Belady, A Study of Replacement Algorithms for a Virtual-Storage Computer, IBM Systems Journal 5(2), 1966.

    >>> order = [0, 1, 2, 0, 1, 2]
    >>> policy = Belady(2, next_uses_of(order))
    >>> [policy.access(number).held for number in order]
    [False, False, False, True, True, False]
    """

    def __init__(self, capacity: int, next_uses: Iterable[float]) -> None:
        self.capacity = _checked(capacity)
        self._next_uses = iter(next_uses)
        self._held: dict[int, float] = {}
        self._farthest: list[tuple[float, int]] = []

    def access(self, number: int) -> Access:
        """Take the next access in; it must be the one whose next use comes next."""
        used_again = next(self._next_uses)
        if number in self._held:
            self._hold(number, used_again)
            return HIT
        if len(self._held) < self.capacity:
            self._hold(number, used_again)
            return MISS
        farthest = self._last()
        if used_again >= self._held[farthest]:
            return MISS
        del self._held[farthest]
        self._hold(number, used_again)
        return Access(False, farthest)

    def _hold(self, number: int, used_again: float) -> None:
        self._held[number] = used_again
        heapq.heappush(self._farthest, (-used_again, number))

    def _last(self) -> int:
        while self._held.get(self._farthest[0][1]) != -self._farthest[0][0]:
            heapq.heappop(self._farthest)
        return self._farthest[0][1]

    def __contains__(self, number: int) -> bool:
        return number in self._held


def next_uses_of(accesses: Sequence[int]) -> list[float]:
    """For every access the position of the next one of the same sample; infinity where there is none.

    >>> next_uses_of([7, 8, 7])
    [2.0, inf, inf]
    """
    found, later = [math.inf] * len(accesses), dict[int, int]()
    for position in range(len(accesses) - 1, -1, -1):
        found[position] = float(later.get(accesses[position], math.inf))
        later[accesses[position]] = position
    return found


def epoch_next_uses(order: Callable[[int], Sequence[int]], first: int = 0) -> Iterator[float]:
    """The same for epochs without end, of which `order` gives the samples, each exactly once: the next use of any
    sample lies in the next epoch, so knowing one epoch ahead is knowing all."""
    number, began, present = first, 0, order(first)
    while True:
        ahead = order(number + 1)
        places = {sample: place for place, sample in enumerate(ahead)}
        began += len(present)
        for sample in present:
            yield float(began + places[sample])
        number, present = number + 1, ahead


PINNED = "pinned"
DYNAMIC = ("belady", "arc", "lfu", "lru", "fifo")
POLICIES = (PINNED, *DYNAMIC)
"""The names of all policies."""


def policy_of(name: str, capacity: int, samples: int, order: Callable[[int], Sequence[int]]) -> Policy:
    """A policy by its name, for epochs over `samples` samples in the order that `order` gives for an epoch's number.

    Raises UsageError for a name that is not one of POLICIES, with the nearest.
    """
    if name == PINNED:
        return Pinned(capacity, samples)
    if name == "belady":
        return Belady(capacity, epoch_next_uses(order))
    simple: dict[str, Callable[[int], Policy]] = {"arc": Arc, "lfu": Lfu, "lru": Lru, "fifo": Fifo}
    if name not in simple:
        raise unknown_name("policy", name, POLICIES)
    return simple[name](capacity)


def hits(policy: Policy, accesses: Iterable[int]) -> int:
    """How many of these accesses find their sample held.

    >>> hits(Lru(2), [1, 2, 1, 3, 2])
    1
    """
    return sum(policy.access(number).held for number in accesses)


def spread(count: int, samples: int) -> list[int]:
    """`count` of the numbers below `samples`, evenly spread.

    >>> spread(2, 5)
    [2, 4]
    """
    return [number for number in range(samples) if (number + 1) * count // samples > number * count // samples]


def _taken_in(held: OrderedDict[int, None], number: int, capacity: int) -> Access:
    dropped = held.popitem(last=False)[0] if len(held) == capacity else None
    held[number] = None
    return Access(False, dropped)


def _checked(capacity: int) -> int:
    if isinstance(capacity, bool) or not isinstance(capacity, int) or capacity < 1:
        raise UsageError(f"the capacity of a cache is {capacity!r} samples; allowed is a whole number of 1 or more")
    return capacity
