"""Requests that wait, and which of them are computed next: a state machine that is told the time and does nothing."""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import Generic, TypeVar

from vivace.serve.batching.curve import Curve

Tag = TypeVar("Tag")
LOOKED_AT = 256
"""Requests that are looked at for one batch: others of the same shapes further behind wait for the next one."""


class Dropped(Enum):
    """Why a request left the queue without being computed."""

    EXPIRED = "expired"
    DISCONNECTED = "disconnected"


@dataclasses.dataclass(eq=False, slots=True)
class Entry(Generic[Tag]):
    """One request that waits. `key` is equal for requests that may share a batch; `tag` is whatever the asker needs.

    `is_gone` tells whether its client has hung up. `must_be_alone` is set when a batch with it failed.
    """

    tag: Tag
    key: object
    samples: int
    byte_count: int
    arrived: float
    expires: float
    is_gone: Callable[[], bool]
    must_be_alone: bool = False


@dataclasses.dataclass(frozen=True)
class Policy:
    """How requests are put together. `most_samples` 1 puts none together. `window_seconds` is how long a batch that is
    not full waits for others; 0 takes what is there when a worker is free.
    """

    most_samples: int = 1
    most_bytes: int = 64 << 20
    window_seconds: float = 0.0
    most_waiting: int = 1024
    most_waiting_bytes: int = 256 << 20


class Queue(Generic[Tag]):
    """A bounded queue. Nothing here waits or computes: the caller says what time it is and takes what is due."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._waiting: deque[Entry[Tag]] = deque()
        self._bytes = 0
        self._dropped: list[tuple[Entry[Tag], Dropped]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def offer(self, entry: Entry[Tag]) -> bool:
        """Let a request wait; False when there is no room."""
        full = len(self._waiting) >= self.policy.most_waiting
        if full or self._bytes + entry.byte_count > max(self.policy.most_waiting_bytes, entry.byte_count):
            return False
        self._waiting.append(entry)
        self._bytes += entry.byte_count
        return True

    def take(self, now: float) -> list[Entry[Tag]]:
        """The next batch, or nothing. What has expired or lost its client on the way is dropped, see `dropped`."""
        self._drop_first(now)
        if not self._waiting or not self._is_due(now):
            return []
        batch: list[Entry[Tag]] = []
        passed: list[Entry[Tag]] = []
        samples = byte_count = 0
        while self._waiting and len(batch) + len(passed) < LOOKED_AT:
            entry = self._pop()
            if self._drops(entry, now):
                continue
            fits = samples + entry.samples <= self.policy.most_samples
            fits = fits and byte_count + entry.byte_count <= self.policy.most_bytes
            if batch and not (fits and entry.key == batch[0].key and not entry.must_be_alone):
                passed.append(entry)
                continue
            batch.append(entry)
            samples, byte_count = samples + entry.samples, byte_count + entry.byte_count
            if entry.must_be_alone or samples >= self.policy.most_samples:
                break
        self._put_back(passed)
        return batch

    def due_in(self, now: float) -> float | None:
        """Seconds until `take` may give something that it does not give now; None while nothing waits."""
        if not self._waiting:
            return None
        return max(0.0, self._waiting[0].arrived + self.policy.window_seconds - now)

    def failed(self, batch: Sequence[Entry[Tag]], once_more: bool) -> list[Entry[Tag]]:
        """What to do after a batch failed: its members wait again, each to be computed alone, before all others.

        Returns those for whom that is over: they were alone already. `once_more` lets a member of a batch of one be
        tried again too, as after the death of a worker, of which it may be innocent.
        """
        was_alone = len(batch) == 1 and (batch[0].must_be_alone or not once_more)
        if was_alone:
            return list(batch)
        for entry in batch:
            entry.must_be_alone = True
        self._put_back(batch)
        return []

    def expire(self, now: float) -> None:
        """Drop whatever has expired or lost its client, wherever it waits."""
        kept = [entry for entry in self._waiting if not self._drops(entry, now)]
        self._waiting = deque(kept)
        self._bytes = sum(entry.byte_count for entry in kept)

    def dropped(self) -> Iterator[tuple[Entry[Tag], Dropped]]:
        """What was dropped since this was last asked, each with the reason."""
        found, self._dropped = self._dropped, []
        return iter(found)

    def oldest_seconds(self, now: float) -> float:
        """How long the request in front has waited; 0 where none waits."""
        return now - self._waiting[0].arrived if self._waiting else 0.0

    def _is_due(self, now: float) -> bool:
        first = self._waiting[0]
        if not self.policy.window_seconds or first.must_be_alone:
            return True
        waited = now - first.arrived >= self.policy.window_seconds
        return waited or sum(entry.samples for entry in self._waiting) >= self.policy.most_samples

    def _drop_first(self, now: float) -> None:
        while self._waiting and self._drops(self._waiting[0], now):
            self._pop()

    def _drops(self, entry: Entry[Tag], now: float) -> bool:
        if entry.is_gone():
            self._dropped.append((entry, Dropped.DISCONNECTED))
        elif now >= entry.expires:
            self._dropped.append((entry, Dropped.EXPIRED))
        else:
            return False
        return True

    def _pop(self) -> Entry[Tag]:
        entry = self._waiting.popleft()
        self._bytes -= entry.byte_count
        return entry

    def _put_back(self, entries: Sequence[Entry[Tag]]) -> None:
        self._waiting.extendleft(reversed(entries))
        self._bytes += sum(entry.byte_count for entry in entries)


def room_for(curve: Curve | None, most_samples: int, patience_seconds: float, most: int) -> int:
    """How many requests may wait so that one that is let in is answered within half of what clients wait.

    By Little's law, waiting = throughput x time; the other half is for what is in the workers, and for answering.

    >>> room_for(Curve(0.0, 0.01), 1, patience_seconds=10.0, most=1024)
    500
    """
    if curve is None:
        return most
    return max(16, min(most, int(patience_seconds / 2 * curve.samples_per_second(most_samples))))


def retry_after_seconds(waiting: int, curve: Curve | None, most_samples: int) -> int:
    """When a client that found no room should come again: after what waits now was computed.

    >>> retry_after_seconds(500, Curve(0.0, 0.01), 1)
    5
    """
    seconds = waiting / curve.samples_per_second(most_samples) if curve is not None else 1.0
    return max(1, min(60, math.ceil(seconds)))
