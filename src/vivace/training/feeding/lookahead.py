"""A feed that makes its next batches in background threads while the training computes."""

from __future__ import annotations

import contextlib
import queue
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import torch

from vivace.training.feed import Collect, Order, Place, StagedFeed
from vivace.training.feeding.transfer import Sent, Transfer

END_SECONDS = 5.0
"""That a process waits for its threads at its end, at most, each."""


class PrefetchedFeed:
    """The batches of a staged feed, in its order, up to `ahead` of them under way or ready.

    It goes on into the next epoch before the last one ends, up to `epochs`: the order of every epoch is known. What the
    job's `augment` draws is drawn when a batch is handed out, in the training's own thread, so that random numbers come
    in the order that they would without this. `device` tells where batches are used, once the training begins; they are
    sent to a CUDA device ahead, or as soon as `augment` had its turn.

    `collect` reads samples; it is called in background threads, several at once. An error in one is raised when its
    batch is due.
    """

    def __init__(
        self,
        feed: StagedFeed,
        collect: Collect,
        workers: int,
        ahead: int,
        epochs: int,
        device: Callable[[], torch.device],
    ) -> None:
        self.order = feed.order
        self._feed = feed
        self._collect = collect
        self._ahead = ahead
        self._epochs = epochs
        self._device = device
        self._transfer: Transfer | None = None
        self._threads = Threads(workers)
        self._waiting: deque[Future[Any]] = deque()
        self._places: Iterator[tuple[Place, torch.Tensor]] = iter(())
        self._next: Place = (-1, -1)

    def epoch(self, number: int, skip: int = 0) -> Iterator[Any]:
        """The batches of one epoch, without the first `skip`."""
        steps = self.steps()
        for position in range(skip, steps):
            if self._next != (number, position) or not self._waiting:  # elsewhere, or beyond the last epoch
                self._restart(number, position)
            self._next = (number, position + 1) if position + 1 < steps else (number + 1, 0)
            yield self._take()

    def steps(self) -> int:
        """Batches in an epoch."""
        return self.order.steps()

    def reads(self) -> bool:
        """Whether any batch still needs the dataset."""
        return self._feed.reads()

    def _restart(self, epoch: int, position: int) -> None:
        """Go on from another place; what was under way is let go."""
        for future in self._waiting:
            future.cancel()
        self._waiting.clear()
        self._places = _places(self.order, epoch, position, max(self._epochs, epoch + 1))
        device = self._device()
        if device.type == "cuda" and self._transfer is None:
            self._transfer = Transfer(device)

    def _take(self) -> Any:
        self._top_up(1)
        worked = self._waiting.popleft().result()
        batch = worked.received() if isinstance(worked, Sent) else self._feed.finish(worked)
        self._top_up(0)
        if self._feed.augment is not None:
            batch = self._feed.augment(batch)
        if self._transfer is None or isinstance(worked, Sent):
            return batch
        return self._transfer.send(batch).received()

    def _top_up(self, due: int) -> None:
        while len(self._waiting) < self._ahead + due:
            following = next(self._places, None)
            if following is None:
                return
            place, indices = following
            self._waiting.append(self._threads.submit(self._work, self._feed.begin(place, indices)))

    def _work(self, begun: Any) -> Any:
        worked = self._feed.work(begun, self._collect)
        if self._transfer is None or self._feed.augment is not None or self._feed.finishes_in_order:
            return worked
        return self._transfer.send(self._feed.finish(worked))


def _places(order: Order, first: int, skip: int, end: int) -> Iterator[tuple[Place, torch.Tensor]]:
    """What is to be made from a place on, to the end of the last epoch; no method, so that no feed is held by it."""
    for epoch in range(first, end):
        for position, indices in enumerate(order.batches(epoch)):
            if epoch > first or position >= skip:
                yield (epoch, position), indices


class Threads:
    """Some threads that do what they are given, in order. They end with it, and never keep the process alive."""

    def __init__(self, count: int) -> None:
        self._tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
        torch.get_num_threads()  # settles this thread's own number, which the first thread to set one would decide
        threads = [
            threading.Thread(target=_serve, args=(self._tasks,), daemon=True, name=f"vivace-feed-{number}")
            for number in range(count)
        ]
        for thread in threads:
            thread.start()
        weakref.finalize(self, _dismiss, self._tasks, threads)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Have a function called; its result, or its error, is the future's."""
        future: Future[Any] = Future()
        self._tasks.put((future, function, arguments))
        return future


def _dismiss(tasks: queue.SimpleQueue[Any], threads: Sequence[threading.Thread]) -> None:
    with contextlib.suppress(queue.Empty):
        while True:
            task = tasks.get_nowait()  # what nobody will take is not begun
            if task is not None:
                task[0].cancel()
    for _ in threads:
        tasks.put(None)
    if not threading.main_thread().is_alive():  # the process ends, which aborts where a thread is inside an operator
        for thread in threads:
            thread.join(END_SECONDS)


def _serve(tasks: queue.SimpleQueue[Any]) -> None:
    torch.set_num_threads(1)  # of this thread alone; the others are busy with the step
    while (task := tasks.get()) is not None:
        future, function, arguments = task
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(function(*arguments))
            except BaseException as error:  # noqa: BLE001  whoever takes the batch gets it
                future.set_exception(error)
        del task, future, function, arguments  # or the last batch would live until the next
