"""The state of a server: what it serves now, whether it is alive, ready or draining, and the change of artifact."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from vivace.core.errors import VivaceError
from vivace.measure.clock import Clock
from vivace.serve.batching.pulse import Pulse
from vivace.serve.front.metrics import Metrics
from vivace.serve.front.stand import Stand
from vivace.serve.settings import Settings

log = logging.getLogger("vivace.serve")
TICK_SECONDS = 0.05
SILENCE_SECONDS = 10.0
STUCK = 2.0
"""Times the timeout that the oldest request may have waited before the server calls itself dead."""


class Site:
    """One server's state. `run` must go on as long as it lives; who asks `is_live` learns when it does not."""

    def __init__(self, settings: Settings, folder: Path, clock: Clock) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.stand: Stand | None = None
        self.is_draining = False
        self._folder = folder
        self._clock = clock
        self._name = settings.name
        self._opened = 0
        self._leaving: set[asyncio.Task[None]] = set()
        self._old: list[Stand] = []
        self._reloading = asyncio.Lock()
        self._pulse = Pulse(clock, SILENCE_SECONDS)
        self.metrics.watch(
            "vivace_queue_depth", "Requests that wait.", lambda: len(self.stand.queue) if self.stand else 0
        )
        self.metrics.watch(
            "vivace_in_flight", "Requests in workers.", lambda: self.stand.crew.in_flight if self.stand else 0
        )
        self.metrics.watch("vivace_ready", "1 when ready.", lambda: float(self.is_ready))

    @property
    def is_live(self) -> bool:
        """Whether requests get on: the ticks go on, and nobody waits far longer than anybody should."""
        waited = self.stand.queue.oldest_seconds(self._clock.now()) if self.stand else 0.0
        return self._pulse.is_alive and waited <= STUCK * self.settings.timeout_seconds

    @property
    def is_ready(self) -> bool:
        """Whether new requests should come here: a worker is ready and nobody is leaving."""
        return self.stand is not None and self.stand.crew.ready > 0 and not self.is_draining and self.is_live

    @property
    def state(self) -> str:
        """In a word, for people."""
        if self.is_draining:
            return "draining"
        return "ready" if self.is_ready else "loading" if self.stand is None else "not ready"

    async def open(self) -> Stand:
        """Open the artifact, prove it by its golden inputs, and serve it from then on. Raises what opening raises."""
        self._opened += 1
        folder = self._folder / str(self._opened)
        stand = await Stand.open(self.settings, self._name, folder, self._clock, self.metrics)
        self._name = stand.model.name  # clients know the model by it, whatever the next artifact is called
        before, self.stand = self.stand, stand
        self.metrics.serves(stand.model.name, stand.facts.digest, str(stand.facts.manifest["plan_name"]))
        if before is not None:
            self._let_go(before)
        return stand

    async def reload(self) -> bool:
        """Open what lies at the artifact's path now; on failure go on with what is served. Whether it succeeded."""
        async with self._reloading:
            try:
                stand = await self.open()
            except (VivaceError, OSError) as error:
                self.metrics.reloaded(False)
                log.error("the new artifact is not served, and the old one is kept: %s", error)
                return False
            self.metrics.reloaded(True)
            log.info("the new artifact %s is served now", stand.facts.digest[:12])
            return True

    async def run(self, sweep: Callable[[float], None]) -> None:
        """Tick until cancelled. Nothing that goes wrong in a tick ends it."""
        last_sweep = self._clock.now()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            try:
                now = self._clock.now()
                for stand in (self.stand, *self._old):
                    if stand is not None:
                        stand.crew.tick(self.settings.timeout_seconds)
                if now - last_sweep >= 1.0:
                    sweep(now)
                    last_sweep = now
                self._pulse.beat()
            except Exception:
                # it must go on; without a beat for SILENCE_SECONDS the server says that it is not alive
                log.exception("a tick failed")

    async def close(self) -> None:
        """Let every worker end."""
        for task in self._leaving:
            task.cancel()
        stands = [*self._old, *([self.stand] if self.stand is not None else [])]
        await asyncio.gather(*(stand.close() for stand in stands))

    def _let_go(self, stand: Stand) -> None:
        """Have an old stand answer what it has, beside the new one."""
        self._old.append(stand)
        task = asyncio.get_running_loop().create_task(self._leave(stand))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _leave(self, stand: Stand) -> None:
        await stand.drain(self.settings.drain_seconds + self.settings.timeout_seconds)
        self._old.remove(stand)
