"""The workers of one artifact: batches go to who is free, who dies is replaced, and only its own requests feel it."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from vivace.core.errors import VivaceError
from vivace.devices.machine import cores_here
from vivace.measure.clock import Clock
from vivace.serve.batching.backoff import Backoff
from vivace.serve.batching.queue import Dropped, Entry, Queue
from vivace.serve.protocol.model import Model
from vivace.serve.protocol.requests import Asked, Shapes
from vivace.serve.workers.arena import Arena, aligned
from vivace.serve.workers.hand import Hand
from vivace.serve.workers.messages import Computed, Place

log = logging.getLogger("vivace.serve")


@dataclasses.dataclass(frozen=True)
class Inferred:
    """The outputs of one request: shapes and bytes in the model's order, and the times that it took."""

    shapes: Shapes
    outputs: tuple[bytes, ...]


@dataclasses.dataclass(frozen=True)
class Failed:
    """Why a request has no outputs. `told` is what its client may read, empty for the generic message."""

    told: str = ""
    reason: str = "failed"


class Ticket(Protocol):
    """Who asked: the request, and where its end is told, once."""

    asked: Asked

    def finish(self, end: Inferred | Failed | Dropped) -> None:
        """The request's end."""
        ...


class Listener(Protocol):
    """Who counts what happens."""

    def computed(self, samples: int, compute_seconds: float, queue_seconds: Sequence[float]) -> None:
        """A batch was computed."""
        ...

    def dropped(self, why: Dropped) -> None:
        """A request left the queue without being computed."""
        ...

    def rerun(self) -> None:
        """The members of a batch that failed are computed alone."""
        ...

    def restarted(self) -> None:
        """A worker was started in the place of another."""
        ...


@dataclasses.dataclass(eq=False)
class Post:
    """The place of one worker: who fills it, what it computes, and when it is filled again."""

    number: int
    hand: Hand | None = None
    is_ready: bool = False
    batch: list[Entry[Ticket]] = dataclasses.field(default_factory=list)
    sent: float = 0.0
    started: float = 0.0
    restart_at: float | None = None
    backoff: Backoff = dataclasses.field(default_factory=Backoff)


Hire = Callable[[Path, Mapping[str, Any], Any, Any, Any, Mapping[str, str]], Hand]


class Crew:
    """Runs a queue's batches on `count` workers. All of it happens in the event loop, on the given clock's time.

    `first_opened` is set with what the first worker says of the artifact, or with its error. `hire` starts a worker.
    """

    def __init__(
        self,
        artifact: Path,
        folder: Path,
        count: int,
        trust: bool,
        clock: Clock,
        listener: Listener,
        hire: Hire = Hand,
    ) -> None:
        self.first_opened: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        self.queue: Queue[Ticket] | None = None
        self._model: Model | None = None
        self._arguments: dict[str, Any] = {"folder": str(artifact), "trust": trust, "digest": None}
        self._folder = folder
        self._clock = clock
        self._listener = listener
        self._hire = hire
        self._posts = [Post(number) for number in range(count)]
        self._is_asked = False
        self._is_closed = False
        self._lives = 0
        self._start(self._posts[0])

    def begin(self, model: Model, queue: Queue[Ticket], digest: str) -> None:
        """Start to answer, and start the other workers; they and all later ones must find the same artifact."""
        self._model, self.queue = model, queue
        self._arguments["digest"] = digest
        for post in self._posts[1:]:
            self._start(post)

    @property
    def ready(self) -> int:
        """How many workers can be given work."""
        return sum(post.is_ready for post in self._posts)

    @property
    def in_flight(self) -> int:
        """Requests that are being computed."""
        return sum(len(post.batch) for post in self._posts)

    @property
    def pids(self) -> list[int]:
        """The workers' processes."""
        return [post.hand.pid for post in self._posts if post.hand is not None and post.hand.pid is not None]

    def ask(self) -> None:
        """Look for work once everything that has arrived by now is in the queue, so that it can share a batch."""
        if not self._is_asked:
            self._is_asked = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def tick(self, longest_batch_seconds: float) -> None:
        """What time brings: places filled again, requests that expired, workers that hang."""
        now = self._clock.now()
        for post in self._posts:
            if post.restart_at is not None and now >= post.restart_at:
                self._listener.restarted()
                self._start(post)
            if post.batch and now - post.sent > longest_batch_seconds and post.hand is not None:
                log.error("worker %d computes one batch for %.0f s: it is ended", post.number, now - post.sent)
                post.hand.kill()
        if self.queue is not None:
            self.queue.expire(now)
            self._tell_dropped()
        self.ask()

    def close(self) -> None:
        """Let every worker end after what it computes."""
        self._is_closed = True
        for post in self._posts:
            post.restart_at = None
            if post.hand is not None:
                post.hand.close()

    def join(self, seconds: float) -> None:
        """Wait for the processes to be gone; blocks."""
        for post in self._posts:
            if post.hand is not None:
                post.hand.join(seconds)

    def _start(self, post: Post) -> None:
        post.started, post.restart_at, post.is_ready = self._clock.now(), None, False
        self._lives += 1
        folder = self._folder / str(self._lives)
        arguments, environment = dict(self._arguments), threads_environment(len(self._posts))
        post.hand = self._hire(folder, arguments, self._on_ready, self._on_computed, self._on_ended, environment)

    def _on_ready(self, hand: Hand, opened: Mapping[str, Any]) -> None:
        post = self._post_of(hand)
        post.is_ready = True
        log.info("worker %d is ready (process %s)", post.number, hand.pid)
        if not self.first_opened.done():
            self.first_opened.set_result(opened)
        self.ask()

    def _on_computed(self, hand: Hand, computed: Computed) -> None:
        post = self._post_of(hand)
        batch, post.batch = post.batch, []
        if computed.failure or computed.call_error:
            self._failed(batch, computed)
        else:
            self._answer(hand, batch, computed, post.sent)
        self.ask()

    def _on_ended(self, hand: Hand, error: VivaceError | None) -> None:
        post = self._post_of(hand)
        batch, post.batch, post.hand, post.is_ready = post.batch, [], None, False
        if not self.first_opened.done():
            self.first_opened.set_exception(error or VivaceError("the server was closed while it started"))
            return
        if batch:
            self._failed(batch, Computed(failure=f"the worker ended: {error}"), died=True)
        if self._is_closed:
            return
        wait = post.backoff.failed(self._clock.now() - post.started)
        post.restart_at = self._clock.now() + wait
        log.error("worker %d ended and is started again in %.1f s: %s", post.number, wait, error)

    def _dispatch(self) -> None:
        self._is_asked = False
        if self.queue is None:
            return
        for post in self._posts:
            if not post.is_ready or post.batch:
                continue
            now = self._clock.now()
            batch = self.queue.take(now)
            if not batch:
                break
            self._send(post, batch, now)
        self._tell_dropped()
        self._wake_when_due()

    def _wake_when_due(self) -> None:
        """With a batching window: look again when it ends."""
        assert self.queue is not None
        is_free = any(post.is_ready and not post.batch for post in self._posts)
        seconds = self.queue.due_in(self._clock.now()) if is_free and self.queue.policy.window_seconds else None
        if seconds is not None:
            asyncio.get_running_loop().call_later(seconds, self.ask)

    def _send(self, post: Post, batch: list[Entry[Ticket]], now: float) -> None:
        assert post.hand is not None
        post.batch, post.sent = batch, now
        try:
            post.hand.send(_lay([entry.tag.asked for entry in batch], post.hand.given))
        except OSError as error:
            # the worker is gone, which its end tells too, and then these are computed once more; or memory is short
            log.error("a batch could not be handed to worker %d: %s", post.number, error)
            post.is_ready = False
            post.hand.kill()

    def _failed(self, batch: Sequence[Entry[Ticket]], computed: Computed, died: bool = False) -> None:
        assert self.queue is not None
        log.error("a batch of %d failed: %s", len(batch), computed.failure or computed.call_error)
        over = self.queue.failed(batch, once_more=died)
        if not over:
            self._listener.rerun()
        for entry in over:
            reason = "worker died" if died else "call" if computed.call_error else "failed"
            entry.tag.finish(Failed(computed.call_error, reason))

    def _answer(self, hand: Hand, batch: list[Entry[Ticket]], computed: Computed, sent: float) -> None:
        assert self._model is not None
        total = sum(entry.samples for entry in batch)
        if len(batch) > 1 and any(place.shape[:1] != (total,) for place in computed.outputs):
            shapes = [list(place.shape) for place in computed.outputs]
            self._failed(batch, Computed(failure=f"outputs of shapes {shapes} for {total} samples"))
            return
        row = 0
        sizes = [port.datatype.bytes for port in self._model.outputs]
        for entry in batch:
            share = (row, entry.samples) if len(batch) > 1 else None
            parts = [_rows(place, size, share) for place, size in zip(computed.outputs, sizes, strict=True)]
            outputs = tuple(hand.taken.read(start, count) for start, count, _ in parts)
            entry.tag.finish(Inferred(tuple(shape for _, _, shape in parts), outputs))
            row += entry.samples
        self._listener.computed(total, computed.compute_seconds, [sent - entry.arrived for entry in batch])

    def _tell_dropped(self) -> None:
        assert self.queue is not None
        for entry, why in self.queue.dropped():
            self._listener.dropped(why)
            entry.tag.finish(why)

    def _post_of(self, hand: Hand) -> Post:
        return next(post for post in self._posts if post.hand is hand)


def _lay(asked: Sequence[Asked], arena: Arena) -> list[Place]:
    """Copy the inputs of all requests into the arena, each input's samples one after the other."""
    places, offsets, end = [], [], 0
    for number, shape in enumerate(asked[0].layout.shapes):
        offsets.append(aligned(end))
        end = offsets[-1] + sum(len(one.parts[number]) for one in asked)
        if len(asked) > 1:
            shape = (sum(one.layout.samples for one in asked), *shape[1:])
        places.append(Place(offsets[-1], shape))
    arena.reserve(end)
    for number, offset in enumerate(offsets):
        for one in asked:
            offset = arena.write(offset, one.parts[number])
    return places


def _rows(place: Place, size: int, share: tuple[int, int] | None) -> tuple[int, int, tuple[int, ...]]:
    """Where an output lies, or the share of a request in it (its first row, its rows): offset, bytes and shape."""
    if share is None:
        return place.offset, math.prod(place.shape) * size, place.shape
    row, count = share
    each = math.prod(place.shape[1:]) * size
    return place.offset + row * each, count * each, (count, *place.shape[1:])


def threads_environment(workers: int, cores: int | None = None) -> dict[str, str]:
    """What keeps workers from each other's cores and from the front's, where neither the user nor the plan says more.

    One core is left for the front. Threads that wait do so asleep: spinning takes the core that the front needs.

    >>> threads_environment(2, cores=8)["OMP_NUM_THREADS"]
    '3'
    """
    if cores is None:
        cores = cores_here()
    wanted = {
        "OMP_NUM_THREADS": str(max(1, (cores - 1) // workers)),
        "OMP_WAIT_POLICY": "PASSIVE",
        "KMP_BLOCKTIME": "0",
    }
    return {name: os.environ.get(name, value) for name, value in wanted.items()}


def shapes_key(shapes: Shapes) -> object:
    """Equal for requests that may share a call: their shapes but for the number of samples."""
    return tuple(shape[1:] for shape in shapes)
