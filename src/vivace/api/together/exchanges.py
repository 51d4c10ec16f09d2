"""What bare exchanges between two processes of this machine take, timed in both of them."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from vivace.api.together.team import LAUNCHER, QUIET
from vivace.distributed.team import Team
from vivace.distributed.world import World
from vivace.measure import clock
from vivace.measure.process import Limits, Worker

SIZES = (4, 65_536, 1_048_576, 8_388_608)
"""Bytes of what is exchanged."""
LARGE, FEW, MANY = 1_000_000, 20, 60
"""Above how many bytes an exchange is made how often."""
DEADLINE_SECONDS = 120.0


def exchanges_here() -> dict[str, dict[str, float]]:
    """Seconds of exchanges between two processes with one thread each, by their bytes: "summing", "gathering" and
    "handing" a tensor on. Takes some seconds. Raises EnvironmentFault where they cannot meet."""
    team = Team(processes=2, deadline=DEADLINE_SECONDS)
    asked = {"team": team.to_json(), "entry": "vivace.api.together.exchanges:open_exchanges", "arguments": {}}
    limits = Limits(measure=2 * DEADLINE_SECONDS)
    with tempfile.TemporaryDirectory(prefix="vivace-") as name, Worker(Path(name), limits, QUIET) as worker:
        worker.open(LAUNCHER, asked, b"")
        told: dict[str, Any] = worker.call("ask", {"method": "timed", "arguments": {}})
    found: dict[str, dict[str, float]] = told["result"]
    return found


def open_exchanges(arguments: Mapping[str, Any], payload: bytes, world: World) -> Exchanges:
    """The entry of a rank."""
    return Exchanges()


class Exchanges:
    """What a rank does."""

    def timed(self) -> dict[str, dict[int, float]]:
        """What `timed` finds."""
        return timed()


def timed() -> dict[str, dict[int, float]]:
    """Seconds of exchanges with the other one of two ranks, by bytes; the median of several."""
    rank, found = dist.get_rank(), {}
    for kind in ("summing", "gathering", "handing"):
        found[kind] = {4 * len(whole): _seconds(kind, whole, rank) for whole in map(_tensor, SIZES)}
    return found


def _tensor(size: int) -> torch.Tensor:
    return torch.zeros(2 * max(1, size // 8))


def _seconds(kind: str, whole: torch.Tensor, rank: int) -> float:
    def handing() -> None:
        for sender in range(2):
            (dist.send if rank == sender else dist.recv)(whole, 1 - rank)

    mine = torch.zeros(len(whole) // 2)
    calls: dict[str, Callable[[], object]] = {
        "summing": lambda: dist.all_reduce(whole),
        "gathering": lambda: dist.all_gather_into_tensor(whole, mine),
        "handing": handing,
    }
    calls[kind]()
    dist.barrier()
    times = FEW if 4 * len(whole) > LARGE else MANY
    seconds = statistics.median(clock.time_calls(lambda *_: calls[kind](), range(times)))
    return seconds / 2 if kind == "handing" else seconds
