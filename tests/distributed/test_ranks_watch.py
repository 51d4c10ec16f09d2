"""Who keeps the others waiting: the rank is named, and the operation, and slow work alone is no reason."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vivace.distributed.watch import Patience, Place, Watch
from vivace.distributed.world import follow

REDUCE = Place(5, "the all-reduce of losses", True, 0, 10)
FORWARD = Place(4, "the forward and backward pass", False, 0, 11)


def beating(place: Place, beat: int) -> Place:
    return dataclasses.replace(place, beat=beat)


def test_a_rank_that_is_elsewhere_is_named_with_what_the_others_wait_in() -> None:
    patience = Patience(looks=3)

    found = [patience.look({0: beating(REDUCE, n), 1: beating(FORWARD, n)}) for n in range(4)]

    assert found[:3] == [None, None, None]
    assert found[3] == (
        1,
        "rank 1 is in the forward and backward pass and did not come to the all-reduce of losses, where rank 0 waits",
    )


def test_a_rank_without_a_sign_of_life_is_named_first() -> None:
    patience = Patience(looks=2)

    found = [patience.look({0: beating(REDUCE, n), 1: beating(FORWARD, n), 2: FORWARD}) for n in range(3)]

    assert found[2] is not None
    assert found[2][0] == 2
    assert "rank 2 gives no sign of life, last in the forward and backward pass" in found[2][1]


def test_ranks_that_all_wait_in_one_place_are_told_so() -> None:
    patience = Patience(looks=2)

    found = [patience.look({0: beating(REDUCE, n), 1: beating(REDUCE, n)}) for n in range(3)]

    assert found[2] is not None and "all ranks wait in the all-reduce of losses" in found[2][1]


def test_ranks_that_wait_in_different_operations_are_told_each_with_its_own() -> None:
    patience, barrier = Patience(looks=2), dataclasses.replace(REDUCE, name="the barrier after a checkpoint", count=4)
    places = {0: REDUCE, 1: barrier, 2: REDUCE}

    found = [patience.look({rank: beating(place, n) for rank, place in places.items()}) for n in range(3)]

    assert found[2] == (
        1,
        "the ranks wait for each other in different operations: ranks 0, 2 wait in the all-reduce of losses; rank 1 "
        "waits in the barrier after a checkpoint, and nothing arrives; rank 1 is the furthest behind",
    )


def test_slow_work_that_nobody_waits_for_may_take_its_time() -> None:
    patience = Patience(looks=2)

    assert not any(patience.look({0: beating(FORWARD, n), 1: beating(FORWARD, n)}) for n in range(9))


def test_ranks_that_move_are_not_stuck() -> None:
    patience = Patience(looks=2)
    moving = [dataclasses.replace(REDUCE, count=n, beat=n) for n in range(9)]

    assert not any(patience.look({0: place, 1: place}) for place in moving)


def test_a_watch_knows_where_its_rank_is_and_where_it_was_before() -> None:
    watch = Watch(1, lambda text: None)

    with watch.during("the step"):
        watch.reach("the all-reduce", together=True)
        inside = watch.place()
    outside = watch.place()

    assert (inside.name, inside.together) == ("the all-reduce", True)
    assert (outside.name, outside.together) == ("starting", False)
    assert outside.count > inside.count


def written_in(file: str, name: str) -> Callable[[Any, Any], None]:
    """A function of a file that need not exist, which says that it runs and waits."""
    found: dict[str, Any] = {}
    exec(compile(f"def {name}(running, over):\n    running.release()\n    over.acquire()\n", file, "exec"), found)
    waiting: Callable[[Any, Any], None] = found[name]
    return waiting


def looked_while_in(watch: Watch, wait: Callable[[Any, Any], None], looks: int = 1) -> list[Place]:
    """Where a watch says that this thread is while it waits."""
    running, over, places = threading.Lock(), threading.Lock(), []

    def look() -> None:
        running.acquire()
        for _ in range(looks):
            watch.look()
            places.append(watch.place())
        over.release()

    running.acquire()
    over.acquire()
    threading.Thread(target=look).start()
    wait(running, over)
    return places


GATHER = "/any/torch/distributed/fsdp/gather.py", "_wait_for_unshard"


def test_a_collective_that_announces_nothing_is_seen_where_it_waits() -> None:
    watch = Watch(1, lambda text: None)

    with watch.during("the forward pass"):
        (found,) = looked_while_in(watch, written_in(*GATHER))

    assert (found.name, found.together) == ("torch.distributed's wait_for_unshard in the forward pass", True)


@pytest.mark.parametrize("file", ["/any/torch/nn/modules/linear.py", "/mine/model.py"])
def test_a_thread_that_computes_is_in_no_collective(file: str) -> None:
    watch = Watch(1, lambda text: None)

    with watch.during("the forward pass"):
        (found,) = looked_while_in(watch, written_in(file, "forward"))

    assert (found.name, found.together) == ("the forward pass", False)


def test_what_is_announced_is_told_as_it_was() -> None:
    watch = Watch(1, lambda text: None)

    with watch.during("the all-reduce of losses", together=True):
        (found,) = looked_while_in(watch, written_in(*GATHER))

    assert found.name == "the all-reduce of losses"


def test_a_rank_that_waits_in_one_line_has_not_moved_unless_it_exchanged_something() -> None:
    still, busy = Watch(1, lambda text: None), Watch(1, lambda text: None, iter(range(9)).__next__)

    counts = {place.count for place in looked_while_in(still, written_in(*GATHER), looks=9)}
    moves = {place.count for place in looked_while_in(busy, written_in(*GATHER), looks=9)}

    assert len(counts) <= 2  # it may be seen on its way into the line that waits
    assert len(moves) == 9


def test_a_rank_waits_in_an_exchange_that_a_device_has_not_ended_wherever_else_it_is() -> None:
    watch, over = Watch(1, lambda text: None), threading.Event()

    with watch.during("advance"):
        watch.follow("the all-reduce of losses", over.is_set)
        watch.look()
        waiting = watch.place()
        over.set()
        watch.look()
        going_on = watch.place()

    assert (waiting.name, waiting.together) == ("the all-reduce of losses in advance", True)
    assert (going_on.name, going_on.together) == ("advance", False)
    assert waiting.count == going_on.count


def test_who_keeps_a_device_waiting_is_named() -> None:
    here, there = (Watch(pid, lambda text: None) for pid in (1, 2))
    patience, found = Patience(3), None

    with here.during("advance"), there.during("the forward and backward pass"):
        here.follow("the all-reduce of losses", lambda: False)
        there.follow("the all-reduce of losses", lambda: True)
        for beat in range(5):
            for watch in (here, there):
                watch.look()
            places = {rank: watch.place() for rank, watch in enumerate((here, there))}
            found = patience.look({rank: dataclasses.replace(one, beat=beat) for rank, one in places.items()})

    assert found is not None
    assert found[1].startswith(
        "rank 1 is in the forward and backward pass and did not come to the all-reduce of losses"
    )


class Event:
    """A CUDA device's, of which nothing is here; it is over when somebody says so."""

    def __init__(self) -> None:
        self.is_recorded = False

    def record(self) -> None:
        self.is_recorded = True

    def query(self) -> bool:
        return not self.is_recorded


def test_a_sum_on_a_device_is_followed_until_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Event", Event)
    watch = Watch(1, lambda text: None)

    follow(watch, SimpleNamespace(is_cuda=False), "the all-reduce of losses")
    watch.look()
    assert not watch.place().together
    follow(watch, SimpleNamespace(is_cuda=True), "the all-reduce of losses")
    watch.look()

    assert watch.place().name == "the all-reduce of losses in starting"
