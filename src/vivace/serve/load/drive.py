"""Driving a server: a closed loop, where each connection waits for its answer, and an open one, Poisson arrivals."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections import Counter, deque
from collections.abc import Mapping

import uvloop

from vivace.core.errors import EnvironmentFault
from vivace.core.measurement import Quantile
from vivace.measure.clock import Clock, SystemClock
from vivace.measure.stats import quantile
from vivace.serve.load.alarm import Alarm
from vivace.serve.load.line import Line
from vivace.serve.load.requests import Target
from vivace.serve.slices import shortest_slice

SHARES = (0.5, 0.9, 0.99)
FIRST_LINES, MOST_LINES = 32, 256
"""Connections of an open loop: to begin with, and at the most."""
DRAIN_SECONDS = 10.0


@dataclasses.dataclass(frozen=True)
class Bounds:
    """How long to go on: until either is reached."""

    requests: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Slice:
    """What one drive saw. `latencies` are seconds of the answers with status 200, in the order in which they came;
    in an open loop they count from when the request was due, also where no connection was free.
    `codes` counts all answers; `lost` are requests that were never answered.
    """

    seconds: float
    latencies: tuple[float, ...]
    codes: Mapping[int, int]
    lost: int = 0

    @property
    def per_second(self) -> float:
        """Good answers a second."""
        return len(self.latencies) / self.seconds if self.seconds > 0 else 0.0

    @property
    def failed(self) -> int:
        """Requests without a good answer."""
        return sum(count for code, count in self.codes.items() if code != 200) + self.lost

    def quantiles(self) -> tuple[Quantile, ...]:
        """p50, p90 and p99 with their 95% bounds; an upper bound of None: too few requests for it."""
        return tuple(quantile(self.latencies, share) for share in SHARES) if self.latencies else ()


def closed_loop(target: Target, connections: int, bounds: Bounds) -> Slice:
    """`connections` clients, each of which sends its next request when it has its answer.

    Raises EnvironmentFault where the server cannot be reached.
    """
    return _run(_Closed(target, bounds), connections)


def open_loop(target: Target, per_second: float, bounds: Bounds, seed: int = 0) -> Slice:
    """Requests at random, independent moments, `per_second` on average, whether the server keeps up or not."""
    return _run(_Open(target, bounds, per_second, random.Random(seed)), FIRST_LINES)


def _run(drive: _Drive, lines: int) -> Slice:
    with shortest_slice(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(drive.run(lines))


class _Drive:
    """What both loops share: connections, counts, and the end."""

    def __init__(self, target: Target, bounds: Bounds, clock: Clock | None = None) -> None:
        self.target = target
        self.bounds = bounds
        self.clock = clock or SystemClock()
        self.lines: set[Line] = set()
        self.latencies: list[float] = []
        self.codes: Counter[int] = Counter()
        self.sent = self.answered = self.lost = 0
        self.is_over = False
        self.started = self.ended = 0.0

    async def run(self, lines: int) -> Slice:
        """All of it."""
        self.loop = asyncio.get_running_loop()
        self.all_answered = asyncio.Event()
        opened = [await self.open() for _ in range(lines)]
        self.started = self.ended = self.clock.now()
        self.loop.call_later(self.bounds.seconds, self.stop)
        self.begin(opened)
        try:
            await asyncio.wait_for(self.all_answered.wait(), self.bounds.seconds + DRAIN_SECONDS)
        except TimeoutError:
            self.lost += self.sent - self.answered
        self.finish()
        for line in list(self.lines):
            line.close()
        return Slice(self.ended - self.started, tuple(self.latencies), dict(self.codes), self.lost)

    async def open(self) -> Line:
        """One more connection."""
        try:
            _, line = await self.loop.create_connection(
                lambda: Line(self.on_answer, self.on_lost), self.target.host, self.target.port
            )
        except OSError as error:
            raise EnvironmentFault(
                f"no server answers at {self.target.host} port {self.target.port} ({error.strerror or error}); start "
                "one with `vivace serve`, or give an artifact"
            ) from None
        self.lines.add(line)
        return line

    def begin(self, opened: list[Line]) -> None:
        """The first requests."""
        raise NotImplementedError

    def finish(self) -> None:
        """Nothing more is to come."""

    def send(self, line: Line, due: float) -> None:
        """The next message, on this connection; its latency counts from `due`."""
        line.sent = due
        message = self.target.messages[self.sent % len(self.target.messages)]
        self.sent += 1
        line.send(message)

    def on_answer(self, line: Line, status: int, body: bytes) -> None:
        """An answer has come."""
        self.ended = self.clock.now()
        self.answered += 1
        self.codes[status] += 1
        if status == 200:
            self.latencies.append(self.ended - line.sent)
        self.free(line)
        self.check_end()

    def on_lost(self, line: Line) -> None:
        """A connection has ended, by the server unless we are done. One that awaited nothing cost no request: servers
        close connections that they call idle."""
        self.lines.discard(line)
        if self.all_answered.is_set():
            return
        if line.awaits:
            self.lost += 1
            self.answered += 1
        else:
            self.forget(line)
        self.check_end()

    def free(self, line: Line) -> None:
        """A connection has nothing to do."""
        raise NotImplementedError

    def forget(self, line: Line) -> None:
        """A connection that had nothing to do is gone."""

    def stop(self) -> None:
        """Send no more."""
        self.is_over = True
        self.check_end()

    def check_end(self) -> None:
        """Finish once everything that was sent is answered."""
        if self.sent >= self.bounds.requests:
            self.is_over = True
        if (self.is_over and self.answered >= self.sent) or not self.lines:
            self.all_answered.set()


class _Closed(_Drive):
    def begin(self, opened: list[Line]) -> None:
        for line in opened:
            self.free(line)

    def free(self, line: Line) -> None:
        if not self.is_over and self.sent < self.bounds.requests:
            self.send(line, self.clock.now())


class _Open(_Drive):
    def __init__(self, target: Target, bounds: Bounds, per_second: float, chance: random.Random) -> None:
        super().__init__(target, bounds)
        self._per_second = per_second
        self._chance = chance
        self._idle: list[Line] = []
        self._due: deque[float] = deque()
        self._next = 0.0
        self._opening: set[asyncio.Task[Line]] = set()

    def begin(self, opened: list[Line]) -> None:
        self._idle = opened
        self._next = self.started
        self._alarm = Alarm(self._arrive)
        self._arrive()

    def _arrive(self) -> None:
        """Everything that is due by now, then sleep until the next is."""
        now = self.clock.now()
        while self._next <= now and not self.is_over:
            self._due.append(self._next)
            self._next += self._chance.expovariate(self._per_second)
        while self._due and self._idle:
            self.send(self._idle.pop(), self._due.popleft())
        if self._due and len(self.lines) + len(self._opening) < MOST_LINES:
            task = self.loop.create_task(self.open())
            self._opening.add(task)
            task.add_done_callback(self._opened)
        if not self.is_over:
            self._alarm.set(self._next - self.clock.now())

    def _opened(self, task: asyncio.Task[Line]) -> None:
        self._opening.discard(task)
        if not task.cancelled() and task.exception() is None:
            self.free(task.result())

    def forget(self, line: Line) -> None:
        self._idle = [idle for idle in self._idle if idle is not line]

    def finish(self) -> None:
        self._alarm.close()

    def free(self, line: Line) -> None:
        if self._due:
            self.send(line, self._due.popleft())
        else:
            self._idle.append(line)

    def check_end(self) -> None:
        if self.is_over and self._due:
            return
        super().check_end()
