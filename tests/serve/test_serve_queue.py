"""The queue as a state machine: told the time, it never waits and never computes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vivace.measure.clock import FakeClock
from vivace.serve.batching.backoff import Backoff
from vivace.serve.batching.curve import Curve, best_batch, fit
from vivace.serve.batching.pulse import Pulse
from vivace.serve.batching.queue import Dropped, Entry, Policy, Queue, retry_after_seconds, room_for

BATCHED = Policy(most_samples=4)


def entry(name, samples=1, key="k", arrived=0.0, expires=10.0, gone=False, size=1):
    return Entry(name, key, samples, size, arrived, expires, lambda: gone)


def filled(policy, *entries):
    queue = Queue(policy)
    for one in entries:
        assert queue.offer(one)
    return queue


def names(entries):
    return [one.tag for one in entries]


def test_what_waits_is_taken_together_up_to_the_largest_batch_in_order():
    queue = filled(BATCHED, *(entry(name) for name in "abcdef"))
    assert names(queue.take(0.0)) == list("abcd")
    assert names(queue.take(0.0)) == list("ef")
    assert queue.take(0.0) == []


def test_requests_of_several_samples_fill_a_batch_and_a_larger_one_goes_alone():
    queue = filled(BATCHED, entry("a", 3), entry("b", 2), entry("c", 1), entry("d", 9))
    assert names(queue.take(0.0)) == ["a", "c"]
    assert names(queue.take(0.0)) == ["b"]
    assert names(queue.take(0.0)) == ["d"]


def test_only_requests_of_the_same_shapes_share_a_batch_and_none_is_overtaken_for_ever():
    queue = filled(BATCHED, entry("a", key=1), entry("b", key=2), entry("c", key=1))
    assert names(queue.take(0.0)) == ["a", "c"]
    assert names(queue.take(0.0)) == ["b"]


def test_without_batching_each_goes_alone():
    queue = filled(Policy(), entry("a"), entry("b"))
    assert names(queue.take(0.0)) == ["a"]
    assert names(queue.take(0.0)) == ["b"]


def test_a_full_queue_takes_no_more_by_count_and_by_bytes():
    queue = filled(Policy(most_waiting=2), entry("a"), entry("b"))
    assert not queue.offer(entry("c"))
    heavy = filled(Policy(most_waiting_bytes=10), entry("a", size=6))
    assert not heavy.offer(entry("b", size=6))
    assert heavy.offer(entry("c", size=4))
    heavy.take(0.0), heavy.take(0.0)
    assert heavy.offer(entry("d", size=10))


def test_the_expired_and_the_disconnected_are_dropped_before_compute_with_their_reasons():
    queue = filled(
        BATCHED, entry("late", expires=1.0), entry("gone", gone=True), entry("good"), entry("old", expires=2.0)
    )
    assert names(queue.take(2.0)) == ["good"]
    assert [(one.tag, why) for one, why in queue.dropped()] == [
        ("late", Dropped.EXPIRED), ("gone", Dropped.DISCONNECTED), ("old", Dropped.EXPIRED)
    ]  # fmt: skip
    assert list(queue.dropped()) == []


def test_what_expires_while_no_worker_is_free_is_told_at_once():
    queue = filled(BATCHED, entry("a"), entry("b", expires=1.0))
    queue.expire(1.0)
    assert [one.tag for one, _ in queue.dropped()] == ["b"]
    assert len(queue) == 1


def test_members_of_a_failed_batch_are_computed_alone_once_before_all_others():
    queue = filled(BATCHED, entry("a"), entry("b"))
    batch = queue.take(0.0)
    assert queue.offer(entry("c"))
    assert queue.failed(batch, once_more=False) == []
    first = queue.take(0.0)
    assert names(first) == ["a"]
    assert names(queue.take(0.0)) == ["b"]
    assert names(queue.failed(first, once_more=True)) == ["a"]
    assert names(queue.take(0.0)) == ["c"]


def test_a_lone_request_that_raised_is_over_and_one_whose_worker_died_is_tried_once_more():
    queue = filled(BATCHED, entry("a"))
    batch = queue.take(0.0)
    assert names(queue.failed(batch, once_more=False)) == ["a"]
    other = filled(BATCHED, entry("a"))
    batch = other.take(0.0)
    assert other.failed(batch, once_more=True) == []
    assert names(other.failed(other.take(0.0), once_more=True)) == ["a"]


def test_a_batch_waits_for_others_while_its_window_is_open_and_no_longer_when_it_is_full():
    policy = Policy(most_samples=3, window_seconds=0.5)
    queue = filled(policy, entry("a", arrived=1.0))
    assert queue.take(1.2) == []
    assert queue.due_in(1.2) == pytest.approx(0.3)
    assert names(queue.take(1.5)) == ["a"]
    assert queue.due_in(1.5) is None
    full = filled(policy, *(entry(name, arrived=1.0) for name in "abc"))
    assert names(full.take(1.0)) == list("abc")


def test_the_age_of_the_oldest_is_that_of_the_first():
    queue = filled(BATCHED, entry("a", arrived=1.0), entry("b", arrived=3.0))
    assert queue.oldest_seconds(4.0) == 3.0
    assert Queue(BATCHED).oldest_seconds(4.0) == 0.0


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(0, 2), st.booleans(), st.floats(0.5, 5)), max_size=40),
    st.integers(1, 8),
    st.randoms(use_true_random=False),
)
def test_every_request_leaves_exactly_once_whatever_happens(requests, most, chance):
    queue = Queue(Policy(most_samples=most, most_waiting=30))
    left, now, inside = [], 0.0, 0
    for number, (samples, key, gone, expires) in enumerate(requests):
        inside += queue.offer(entry(number, samples, key, now, now + expires, gone))
        now += 0.1
        if chance.random() < 0.5:
            batch = queue.take(now)
            assert sum(one.samples for one in batch) <= most or len(batch) == 1
            assert len({one.key for one in batch}) <= 1
            left += batch if chance.random() < 0.5 else queue.failed(batch, chance.random() < 0.5)
        left += [one for one, _ in queue.dropped()]
    while batch := queue.take(now):
        left += batch
    left += [one for one, _ in queue.dropped()]
    assert len(left) == len({one.tag for one in left}) == inside
    assert queue._bytes == 0


@settings(deadline=None)
@given(st.floats(1e-5, 1e-1), st.floats(1e-6, 1e-2))
def test_a_line_is_found_in_its_own_points(fixed, each):
    curve = fit([(n, fixed + each * n) for n in (1, 2, 4, 8, 16, 32)])
    assert curve.fixed_seconds == pytest.approx(fixed, rel=1e-4, abs=1e-9)
    assert curve.sample_seconds == pytest.approx(each, rel=1e-4)


@pytest.mark.parametrize(
    ("points", "batch"),
    [
        ([(1, 0.001), (2, 0.002), (4, 0.004)], 1),  # nothing is won by putting together
        ([(1, 0.010), (2, 0.0101), (4, 0.0103)], 64),  # a call costs, samples hardly do
        ([(1, 0.060), (2, 0.110), (4, 0.210)], 1),  # two would take longer than anybody should wait
        ([(1, 0.003), (2, 0.002)], 64),  # noise: larger calls seem quicker, and no part may be negative
    ],
)
def test_the_batch_is_as_large_as_it_pays(points, batch):
    curve = fit(points)
    assert best_batch(curve) == batch
    assert min(curve.fixed_seconds, curve.sample_seconds) >= 0


def test_a_point_without_samples_or_time_is_no_point():
    with pytest.raises(ValueError, match="positive seconds"):
        fit([(0, 1.0)])


def test_the_queue_is_as_long_as_half_of_the_patience_and_says_when_to_come_again():
    curve = Curve(0.01, 0.0)
    assert room_for(curve, most_samples=1, patience_seconds=2.0, most=1024) == 100
    assert room_for(curve, most_samples=64, patience_seconds=30.0, most=1024) == 1024
    assert room_for(None, 1, 1.0, 77) == 77
    assert retry_after_seconds(250, curve, 1) == 3
    assert retry_after_seconds(0, None, 1) == 1


def test_restarts_come_later_and_later_and_soon_again_after_a_long_life():
    backoff = Backoff()
    waits = [backoff.failed(1.0) for _ in range(12)]
    assert waits[:4] == [0.1, 0.2, 0.4, 0.8]
    assert waits[-1] == 30.0
    assert backoff.failed(61.0) == 0.1


def test_silence_is_noticed():
    clock = FakeClock()
    pulse = Pulse(clock, silence_seconds=5.0)
    clock.advance(5.0)
    assert pulse.is_alive
    clock.advance(0.1)
    assert not pulse.is_alive
    pulse.beat()
    assert pulse.is_alive
