"""What running branches at the same time is worth beside the fastest plan whose threads share every operator.

python benchmarks/branches.py             # some ten minutes; writes results/branches.json

Four networks with branches, random weights, one call at a time. For each of them a search that may use every technique,
and one without those that run branches apart; then both winners in turns, in fresh pairs of processes. The ratio is how
many times as fast the first winner is. Where the first winner has no branches apart either, they did not pay, and the
second one, or `native-program` where that is not written out, is compared with itself and `written-branches`.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import vivace as vv
from inference import keep
from training_table import RESULTS
from vivace.api.request import plan_of
from vivace.core.errors import VivaceError
from vivace.core.facts import Fact
from vivace.core.plan import Plan
from vivace.measure import environment

APART = ("written-branches", "parallel-branches")
"""The techniques that run branches at the same time."""


class Recommender(nn.Module):
    """Two towers of recurrences, over what a user did and over what an item is, and how well they meet."""

    def __init__(self, features: int = 32, units: int = 64) -> None:
        super().__init__()
        self.user, self.item = (nn.GRU(features, units, batch_first=True) for _ in range(2))
        self.head = nn.Sequential(nn.Linear(2 * units, 64), nn.ReLU(), nn.Linear(64, 8))

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        return self.head(torch.cat([self.user(user)[0][:, -1], self.item(item)[0][:, -1]], 1))


class Tagger(nn.Module):
    """An LSTM of two layers in both directions, and a tag for each step."""

    def __init__(self, features: int = 32, units: int = 64) -> None:
        super().__init__()
        self.both = nn.LSTM(features, units, 2, batch_first=True, bidirectional=True)
        self.tags = nn.Linear(2 * units, 12)

    def forward(self, steps: Tensor) -> Tensor:
        return self.tags(self.both(steps)[0])


class Inception(nn.Module):
    """Small images through blocks of two branches of convolutions."""

    def __init__(self, channels: int = 32, blocks: int = 3) -> None:
        super().__init__()
        half = channels // 2
        self.stem, self.head = nn.Conv2d(3, channels, 3, padding=1), nn.Linear(channels, 10)
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                nn.Sequential(nn.Conv2d(channels, half, 1), nn.ReLU(), nn.Conv2d(half, half, 3, padding=1), nn.ReLU())
                for _ in range(2)
            )
            for _ in range(blocks)
        )

    def forward(self, image: Tensor) -> Tensor:
        image = self.stem(image)
        for block in self.blocks:
            image = torch.cat([branch(image) for branch in block], 1)
        return self.head(image.mean((2, 3)))


class Siamese(nn.Module):
    """One encoder of small images for both of a pair, and how alike they are."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        widths = (1, channels, 2 * channels, 2 * channels)
        layers = [
            layer
            for before, after in itertools.pairwise(widths)
            for layer in (nn.Conv2d(before, after, 3, 2, 1), nn.ReLU())
        ]
        self.encoder = nn.Sequential(*layers, nn.Flatten(), nn.Linear(2 * channels * 16, 64))

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        return torch.cosine_similarity(self.encoder(one), self.encoder(other))


def workloads() -> list[vv.Workload]:
    """The networks, each with an example call."""
    torch.manual_seed(0)
    draw = torch.randn
    return [
        vv.Workload(Recommender(), inputs=(draw(1, 32, 32), draw(1, 32, 32)), name="two-tower recommender"),
        vv.Workload(Tagger(), inputs=(draw(1, 40, 32),), name="bidirectional tagger"),
        vv.Workload(Inception(), inputs=(draw(1, 3, 16, 16),), name="inception on 16 x 16"),
        vv.Workload(Siamese(), inputs=(draw(1, 1, 32, 32), draw(1, 1, 32, 32)), name="siamese encoder"),
    ]


def found(work: vv.Workload, time: str, without: tuple[str, ...] = ()) -> Plan:
    """The plan that a search ends with."""
    with tempfile.TemporaryDirectory() as folder:
        return vv.optimize(work, time=time, out=Path(folder) / "artifact", without=without).plan


def is_apart(plan: Plan) -> bool:
    """Whether it runs branches at the same time."""
    return any(one.name() in APART for one in plan)


def compared(work: vv.Workload, search: str, time: str) -> dict[str, Any]:
    """Both winners, and the first one against the second in turns."""
    winner, shared = found(work, search), found(work, search, without=APART)
    record: dict[str, Any] = {"workload": work.name, "winner": str(winner), "without": str(shared), "ratio": None}
    record["is_apart"] = is_apart(winner)
    is_written = any(Fact.WRITTEN in one.gives for one in shared)
    if not is_apart(winner):
        shared = shared if is_written else plan_of(["native-program"])
        winner = Plan.of([*shared, *plan_of(["written-branches"])])
    try:
        against = vv.measure(shared, winner, work=work, time=time)
    except VivaceError as error:
        print(f"{work.name}: {record['winner']}; {winner} over {shared}: {error}")
        return record | {"reason": str(error)}
    told = f"{winner} over {shared}: {against.speedup} {against.verdict.value}; {against.note}"
    print(f"{work.name}: {record['winner']}; {told}")
    return record | {
        "shared": str(shared), "apart": str(winner),
        "ratio": dataclasses.asdict(against.speedup), "verdict": against.verdict.value, "note": against.note,
        "without_ms": 1000 * against.baseline.median_seconds,
        "apart_ms": 1000 * against.candidate.median_seconds,
    }  # fmt: skip


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    options.add_argument("--search", default="1m", help="how long each search may take (%(default)s)")
    options.add_argument("--time", default="20s", help="how long the blocks of one comparison may take (%(default)s)")
    options.add_argument("--only", default="", help="a part of the name of the networks to take")
    chosen = options.parse_args()
    taken = [work for work in workloads() if chosen.only in work.name]
    rows = [compared(work, chosen.search, chosen.time) for work in taken]
    conditions = {"effort": vars(chosen), "after": environment.snapshot()}
    keep(RESULTS / "branches.json", {"rows": rows, "conditions": conditions})


if __name__ == "__main__":
    main()
