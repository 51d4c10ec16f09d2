"""One artifact being served: its model, its queue and its workers, from opening to the last answer."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from vivace.core.signature import Signature
from vivace.measure.clock import Clock
from vivace.serve.batching.curve import Curve
from vivace.serve.batching.queue import Dropped, Entry, Policy, Queue, retry_after_seconds, room_for
from vivace.serve.front.metrics import Metrics
from vivace.serve.protocol.answers import Writer
from vivace.serve.protocol.model import Model
from vivace.serve.protocol.refusal import Refusal
from vivace.serve.protocol.requests import Asked, Reader
from vivace.serve.settings import Settings
from vivace.serve.workers.crew import Crew, Failed, Inferred, Ticket, shapes_key

log = logging.getLogger("vivace.serve")
END_SECONDS = 10.0


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a worker said of the artifact when it opened it."""

    digest: str
    manifest: Mapping[str, Any]
    warnings: tuple[str, ...]
    why_not_batched: str
    curve: Curve
    points: tuple[tuple[int, float], ...]


class _Asker:
    """Waits for one request's end."""

    __slots__ = ("asked", "future")

    def __init__(self, asked: Asked, future: asyncio.Future[Inferred | Failed | Dropped]) -> None:
        self.asked = asked
        self.future = future

    def finish(self, end: Inferred | Failed | Dropped) -> None:
        if not self.future.done():
            self.future.set_result(end)


class Stand:
    """Serves one artifact. Make it with `open`."""

    def __init__(
        self, model: Model, facts: Facts, policy: Policy, crew: Crew, settings: Settings, clock: Clock
    ) -> None:
        self.model = model
        self.facts = facts
        self.policy = policy
        self.crew = crew
        self.reader = Reader(model, settings.limits)
        self.writer = Writer(model)
        self.queue: Queue[Ticket] = Queue(policy)
        self._settings = settings
        self._clock = clock
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def open(cls, settings: Settings, name: str, folder: Path, clock: Clock, metrics: Metrics) -> Self:
        """Load the artifact in a worker, with every check, and start the others.

        Raises what loading raises (ArtifactError, MissingExtra, EnvironmentFault, WorkerFailure), and UsageError for a
        model that the protocol cannot serve.
        """
        artifact = settings.artifact.resolve()
        crew = Crew(artifact, folder, settings.workers, settings.trust, clock, metrics)
        try:
            opened = await crew.first_opened
            facts, most_samples = _facts(opened)
            model = Model.of(name or facts.manifest["name"], Signature.from_json(opened["signature"]))
        except BaseException:
            crew.close()
            raise
        stand = cls(model, facts, _policy(settings, most_samples, facts.curve), crew, settings, clock)
        crew.begin(model, stand.queue, facts.digest)
        for warning in facts.warnings:
            log.warning("%s", warning)
        return stand

    async def infer(self, asked: Asked, is_gone: Callable[[], bool]) -> Inferred | None:
        """The outputs of a request; None where its client has hung up. Raises Refusal."""
        now = self._clock.now()
        patience = min(asked.layout.timeout_seconds or self._settings.timeout_seconds, self._settings.timeout_seconds)
        asker = _Asker(asked, self._loop.create_future())
        entry: Entry[Ticket] = Entry(
            asker, shapes_key(asked.layout.shapes), asked.layout.samples, sum(map(len, asked.parts)), now,
            now + patience,
            is_gone,
        )  # fmt: skip
        if not self.queue.offer(entry):
            raise self._full()
        self.crew.ask()
        end = await asker.future
        if isinstance(end, Inferred):
            return end
        if isinstance(end, Failed):
            raise _failure(end)
        if end is Dropped.EXPIRED:
            raise Refusal(
                503, f"the request waited for {patience:g} s without being computed; come again later, or allow more",
                "expired", self._retry_after(),
            )  # fmt: skip
        return None

    async def drain(self, seconds: float) -> None:
        """Answer what is waiting, at most this long, then let the workers end."""
        until = self._clock.now() + seconds
        while (len(self.queue) or self.crew.in_flight) and self._clock.now() < until:
            await asyncio.sleep(0.05)
        await self.close()

    async def close(self) -> None:
        """Let the workers end."""
        self.crew.close()
        await asyncio.to_thread(self.crew.join, END_SECONDS)

    def _full(self) -> Refusal:
        return Refusal(
            503, f"{len(self.queue)} requests wait already, which is all that may; come again later", "queue full",
            self._retry_after(),
        )  # fmt: skip

    def _retry_after(self) -> int:
        return retry_after_seconds(len(self.queue), self.facts.curve, self.policy.most_samples)


def _facts(opened: Mapping[str, Any]) -> tuple[Facts, int]:
    batching = opened["batching"]
    facts = Facts(
        digest=opened["digest"],
        manifest=opened["manifest"],
        warnings=tuple(opened["warnings"]),
        why_not_batched=batching["why_not"],
        curve=Curve(**batching["curve"]),
        points=tuple((count, seconds) for count, seconds in batching["points"]),
    )
    return facts, batching["most_samples"]


def _policy(settings: Settings, most_samples: int, curve: Curve) -> Policy:
    most = most_samples if settings.max_batch is None else min(most_samples, settings.max_batch)
    return Policy(
        most_samples=most,
        most_bytes=settings.limits.body_bytes,
        window_seconds=settings.window_seconds,
        most_waiting=room_for(curve, most, settings.timeout_seconds, settings.most_waiting),
        most_waiting_bytes=4 * settings.limits.body_bytes,
    )


def _failure(end: Failed) -> Refusal:
    if end.told:
        return Refusal(400, end.told, end.reason)
    return Refusal(500, "", end.reason)
