"""Replacement policies: each against somebody else's definition of it, Belady's against the optimum found by trying."""

from __future__ import annotations

import itertools
import math
import random
from functools import cache

import pytest

from vivace.core.errors import UsageError
from vivace.data.replacement import Arc, Belady, Fifo, Lfu, Lru, Pinned, epoch_next_uses, hits, next_uses_of, policy_of
from vivace.data.replay import replay, replayed


def epochs(samples: int, count: int, seed: int = 0) -> list[list[int]]:
    chance = random.Random(seed)
    return [chance.sample(range(samples), samples) for _ in range(count)]


def best_possible(accesses: tuple[int, ...], capacity: int) -> int:
    """The most hits that any choice of what to keep gives, by trying all of them."""

    @cache
    def most(position: int, held: frozenset[int]) -> int:
        if position == len(accesses):
            return 0
        number = accesses[position]
        if number in held:
            return 1 + most(position + 1, held)
        choices = [held]
        choices += [held | {number}] if len(held) < capacity else [held - {one} | {number} for one in held]
        return max(most(position + 1, choice) for choice in choices)

    return most(0, frozenset())


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("capacity", [1, 2, 3])
def test_belady_hits_as_often_as_the_best_of_all_choices(capacity: int, seed: int) -> None:
    chance = random.Random(seed)
    accesses = tuple(chance.randrange(6) for _ in range(24))

    found = hits(Belady(capacity, next_uses_of(accesses)), accesses)

    assert found == best_possible(accesses, capacity)


@pytest.mark.parametrize("capacity", [1, 2, 3, 4])
def test_in_epochs_the_best_of_all_choices_is_as_many_hits_an_epoch_as_samples_fit(capacity: int) -> None:
    order = epochs(5, 4)
    accesses = tuple(itertools.chain(*order))

    assert best_possible(accesses, capacity) == 3 * capacity
    assert hits(Belady(capacity, next_uses_of(accesses)), accesses) == 3 * capacity
    assert hits(Pinned(capacity, 5), itertools.chain(*order[1:])) == 3 * capacity


def test_knowing_one_epoch_ahead_is_knowing_all() -> None:
    order = epochs(50, 6)
    accesses = list(itertools.chain(*order))

    ahead = list(itertools.islice(epoch_next_uses(lambda epoch: order[epoch]), 250))

    assert ahead == next_uses_of(accesses)[:250]


def test_lru_holds_of_shuffled_epochs_what_two_uniform_numbers_predict() -> None:
    order = epochs(4000, 6)

    found = replayed("lru", lambda epoch: order[epoch], 4000, 2000, epochs=6)

    left_out = 0.5  # a sample is still there if x (1 - y) > 1 - capacity share, x and y its places in two epochs
    assert found.share == pytest.approx(1 - left_out + left_out * math.log(left_out), abs=0.01)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_policy_that_is_used_is_within_a_thousandth_of_the_optimum(share: float) -> None:
    order = epochs(2000, 5)  # Belady's looks one ahead

    found = {one.policy: one.share for one in replay(lambda epoch: order[epoch], 2000, int(2000 * share))}

    assert found["pinned"] == pytest.approx(found["belady"], abs=1e-3)
    assert found["pinned"] == pytest.approx(share, abs=1e-3)
    assert max(found[name] for name in ("arc", "lfu", "lru", "fifo")) < found["belady"]


def test_a_replay_of_many_samples_is_scaled_and_tells_the_same() -> None:
    order = epochs(20_000, 5)

    found = {one.policy: one for one in replay(lambda epoch: order[epoch], 20_000, 5_000)}

    assert found["belady"].accesses < 20_000
    assert found["belady"].share == pytest.approx(0.25, abs=0.002)
    assert found["lru"].share == pytest.approx(1 - 0.75 + 0.75 * math.log(0.75), abs=0.02)


class PaperArc:
    """ARC as figure 4 of Megiddo and Modha (FAST 2003) writes it, with plain lists; the front is the oldest."""

    def __init__(self, capacity: int) -> None:
        self.c, self.p = capacity, 0.0
        self.t1, self.t2, self.b1, self.b2 = [], [], [], []

    def replace(self, in_b2: bool) -> None:
        if self.t1 and (len(self.t1) > self.p or (in_b2 and len(self.t1) == self.p)):
            self.b1.append(self.t1.pop(0))
        else:
            self.b2.append(self.t2.pop(0))

    def access(self, x: int) -> bool:
        if x in self.t1 + self.t2:
            (self.t1 if x in self.t1 else self.t2).remove(x)
            self.t2.append(x)
            return True
        if x in self.b1:
            self.p = min(self.c, self.p + (1 if len(self.b1) >= len(self.b2) else len(self.b2) / len(self.b1)))
            self.replace(False)
            self.b1.remove(x)
            self.t2.append(x)
        elif x in self.b2:
            self.p = max(0, self.p - (1 if len(self.b2) >= len(self.b1) else len(self.b1) / len(self.b2)))
            self.replace(True)
            self.b2.remove(x)
            self.t2.append(x)
        else:
            self.take_in(x)
        return False

    def take_in(self, x: int) -> None:
        if len(self.t1) + len(self.b1) == self.c:
            if len(self.t1) < self.c:
                self.b1.pop(0)
                self.replace(False)
            else:
                self.t1.pop(0)
        elif len(self.t1 + self.t2 + self.b1 + self.b2) >= self.c:
            if len(self.t1 + self.t2 + self.b1 + self.b2) == 2 * self.c:
                self.b2.pop(0)
            self.replace(False)
        self.t1.append(x)


@pytest.mark.parametrize("seed", range(6))
def test_arc_does_at_every_access_what_its_paper_says(seed: int) -> None:
    chance = random.Random(seed)
    accesses = [int(chance.paretovariate(0.6)) % 40 for _ in range(1500)]
    policy, paper = Arc(9), PaperArc(9)

    for number in accesses:
        assert policy.access(number).held == paper.access(number)
        assert (list(policy.t1), list(policy.t2), policy.p) == (paper.t1, paper.t2, pytest.approx(paper.p))


def test_a_scan_does_not_wash_out_of_arc_what_is_asked_for_often_as_it_does_of_lru() -> None:
    often, scan = list(range(8)), list(range(100, 200))
    accesses = often * 4 + scan + often

    held = {kind.__name__: hits(kind(16), accesses) for kind in (Arc, Lru)}

    assert held == {"Arc": 24 + 8, "Lru": 24}


def test_lfu_keeps_what_was_asked_for_most_and_of_equals_the_newest() -> None:
    policy = Lfu(2)

    dropped = [policy.access(number).dropped for number in (1, 1, 2, 3, 4, 4, 5)]

    assert dropped == [None, None, None, 2, 3, None, 1]


def test_fifo_pays_no_heed_to_hits() -> None:
    assert [Fifo(2).capacity, hits(Fifo(2), [1, 2, 1, 3, 1])] == [2, 1]
    assert hits(Lru(2), [1, 2, 1, 3, 1]) == 2


def test_a_policy_that_does_not_exist_and_a_capacity_of_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="did you mean 'lru'"):
        policy_of("lruu", 2, 4, lambda epoch: range(4))
    with pytest.raises(UsageError, match="capacity of a cache is 0"):
        Lru(0)
