"""Where every rank is, told as it goes, and who keeps the others waiting when none of them moves any more."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType

BEAT_SECONDS = 0.5
"""Between two signs of life of a rank."""
COLLECTIVES = "/torch/distributed/"
PASSING = ("torch/_ops.py", "torch/distributed/c10d_logger.py", "torch/utils/_contextlib.py")
"""Files whose functions only pass a call on."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a rank is: in what (`name`), whether the others must be there too (`together`), how many such places it
    has been to (`count`), and its last sign of life (`beat`). `pid` is its process.
    """

    count: int
    name: str
    together: bool
    beat: int
    pid: int


class Watch:
    """Knows where a rank is, and tells it from a thread of its own, so that a rank that hangs still tells where.

    `tell` receives a JSON text every half second. Places are announced by `during` and `reach`. PyTorch's collectives
    inside of them, such as those that gather what FSDP2 has split, announce nothing: they are seen on the stack of the
    thread that made this, and are places where the others must be too. `exchanged` counts what this rank has
    begun to exchange, so that a rank which waits in one line again and again is not taken for one that is stuck.
    """

    def __init__(self, pid: int, tell: Callable[[str], None], exchanged: Callable[[], int] = lambda: 0) -> None:
        self._pid = pid
        self._tell = tell
        self._exchanged = exchanged
        self._count = 0
        self._beat = 0
        self._moves = 0
        self._waits: tuple[str, int, int] = ("", 0, 0)
        self._followed: tuple[str, Callable[[], bool]] | None = None
        self._owes = ""
        self._watched = threading.get_ident()
        self._stack: list[tuple[str, bool]] = [("starting", False)]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vivace-watch", daemon=True)

    def start(self) -> None:
        """Begin to tell."""
        self._thread.start()

    def close(self) -> None:
        """Tell no more."""
        self._over.set()

    @contextlib.contextmanager
    def during(self, name: str, together: bool = False) -> Iterator[None]:
        """Inside, the rank is in `name`; `together`: where it waits for the others."""
        depth = len(self._stack)
        self.reach(name, together)
        try:
            yield
        finally:
            del self._stack[depth:]
            self._count += 1

    def reach(self, name: str, together: bool) -> None:
        """The rank is in `name` from now on, until it leaves the place that it was in (`during`)."""
        self._stack.append((name, together))
        self._count += 1

    def follow(self, name: str, is_over: Callable[[], bool]) -> None:
        """The rank has begun an exchange that goes on by itself, on a device: until it is over, it waits for the others
        in it, whatever else it does, such as reading a loss that it has not got."""
        self._followed = (name, is_over)
        self._count += 1

    def place(self) -> Place:
        """Where the rank is."""
        name, together = self._stack[-1]
        operation = self._waits[0] or self._owes
        if operation and not together:
            name, together = f"{operation} in {name}", True
        return Place(self._count + self._moves, name, together, self._beat, self._pid)

    def _run(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            self._beat += 1
            with contextlib.suppress(Exception):  # the launcher may be gone, which ends this process by other means
                self.look()
                self._tell(json.dumps(dataclasses.asdict(self.place())))

    def look(self) -> None:
        """See, from another thread, whether the rank is in a collective, and whether it has moved since last time."""
        followed = self._followed
        self._owes = followed[0] if followed is not None and not followed[1]() else ""
        waits = (*collective_of(sys._current_frames().get(self._watched)), self._exchanged())
        if waits != self._waits:
            self._waits = waits
            self._moves += 1


def collective_of(frame: FrameType | None) -> tuple[str, int]:
    """The function of torch.distributed that a thread is in, by its innermost frame, and where in it; an empty text
    where it computes or is elsewhere.

    >>> collective_of(sys._getframe())
    ('', 0)
    """
    while frame is not None and frame.f_code.co_filename.endswith(PASSING):
        frame = frame.f_back
    if frame is None or COLLECTIVES not in frame.f_code.co_filename:
        return "", 0
    return f"torch.distributed's {frame.f_code.co_name.strip('_')}", frame.f_lasti


class Patience:
    """Looks at where all ranks are, again and again, and says when they have been stuck for too long, and by whom.

    `looks` is how many looks without a change are too many. Only ranks that wait for others can be stuck: one that
    computes, or scores, takes as long as it takes.
    """

    def __init__(self, looks: int) -> None:
        self._looks = looks
        self._same: dict[int, int] = {}
        self._silent: dict[int, int] = {}
        self._seen: dict[int, Place] = {}

    def look(self, places: Mapping[int, Place]) -> tuple[int, str] | None:
        """The rank that keeps the others waiting, and the sentence that says so; None while all is well."""
        for rank, place in places.items():
            before = self._seen.get(rank)
            moved = before is None or before.count != place.count
            alive = before is None or before.beat != place.beat
            self._same[rank] = 0 if moved else self._same[rank] + 1
            self._silent[rank] = 0 if alive else self._silent[rank] + 1
        self._seen = dict(places)
        stuck = [rank for rank, place in places.items() if place.together and self._same[rank] >= self._looks]
        return culprit(places, stuck, self._silent, self._looks) if stuck else None


def culprit(
    places: Mapping[int, Place], stuck: list[int], silent: Mapping[int, int], looks: int
) -> tuple[int, str] | None:
    """Who keeps the ranks `stuck` waiting: one without a sign of life, else one elsewhere, else the one that has been
    to the fewest places.

    >>> at = Place(7, "the all-reduce of gradients", True, 9, 1)
    >>> culprit({0: at, 1: Place(6, "the forward pass", False, 9, 2)}, [0], {0: 0, 1: 0}, 4)[1]
    'rank 1 is in the forward pass and did not come to the all-reduce of gradients, where rank 0 waits'
    """
    dead = [rank for rank in places if silent[rank] >= looks]
    absent = [rank for rank in places if rank not in stuck]
    waiting = [rank for rank in stuck if rank not in dead] or stuck
    where, others = places[waiting[0]].name, _named([rank for rank in waiting if rank not in dead])
    if dead:
        rank = dead[0]
        return rank, (
            f"rank {rank} gives no sign of life, last in {places[rank].name}"
            + (f", and did not come to {where}, where {others}" if others else "")
        )
    if absent:
        rank = min(absent, key=lambda one: places[one].count)
        return rank, f"rank {rank} is in {places[rank].name} and did not come to {where}, where {others}"
    rank = min(stuck, key=lambda one: places[one].count)
    names = dict.fromkeys(places[one].name for one in stuck)
    together = {name: _named([one for one in stuck if places[one].name == name]) for name in names}
    apart = "; ".join(f"{ranks} in {name}" for name, ranks in together.items())
    told = f"the ranks wait for each other in different operations: {apart}" if len(names) > 1 else ""
    return rank, f"{told or f'all ranks wait in {where}'}, and nothing arrives; rank {rank} is the furthest behind"


def _named(ranks: list[int]) -> str:
    if not ranks:
        return ""
    return f"rank {ranks[0]} waits" if len(ranks) == 1 else f"ranks {', '.join(map(str, ranks))} wait"
