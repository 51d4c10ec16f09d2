"""Is a measurement to be trusted? The same network against itself, and against one that does 5% more, many times over.

python benchmarks/truth.py                 # about 12 minutes; writes benchmarks/results/truth.json
python benchmarks/truth.py --runs 5
"""

from __future__ import annotations

import argparse
import collections
import datetime
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import inference
import race
import table
from vivace.core.measurement import Comparison, SpeedVerdict
from vivace.core.structure import Structure
from vivace.data import samples
from vivace.measure import environment
from vivace.measure.paired import ArmSpec, StopRule, compare, measure_noise

LAYERS = 20
RULE = StopRule(max_seconds=6.0, warm_seconds=1.0)
RESTARTS = 3


class Stack(nn.Module):
    """So many products of 256 by 256, on 32 rows: about a millisecond."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(256, 256) for _ in range(layers)))

    def forward(self, rows: Tensor) -> Tensor:
        answer: Tensor = self.layers(rows)
        return answer


def arm(layers: int) -> ArmSpec:
    torch.manual_seed(0)
    return ArmSpec("peers.eager:open_peer", {}, Stack(layers).eval(), f"{layers} layers")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=40, help="comparisons with itself; a quarter as many with 5%% more")
    parser.add_argument("--results", type=Path, default=table.RESULTS)
    options = parser.parse_args()
    race.main_thread_only()
    before = environment.snapshot()
    with tempfile.TemporaryDirectory() as folder:
        calls = samples.write(
            Path(folder) / "calls",
            [[torch.randn(32, 256)] for _ in range(8)],
            Structure("dict", (Structure("tensor"),), ("input",)),
            1,
        )
        same = repeat(LAYERS, options.runs, calls, Path(folder))
        slower = repeat(LAYERS + LAYERS // 20, max(1, options.runs // 4), calls, Path(folder))
    wrong = sum(run["verdict"] in (SpeedVerdict.FASTER.value, SpeedVerdict.SLOWER.value) for run in same)
    found = sum(run["high"] < 1 for run in slower)
    print(f"against itself: {len(same) - wrong} of {len(same)} called SAME or UNDECIDED")
    print(f"5% more work: {found} of {len(slower)} intervals lie below 1")
    options.results.mkdir(parents=True, exist_ok=True)
    inference.keep(
        options.results / "truth.json",
        {
            "against_itself": same, "five_percent_more": slower, "called_different": wrong, "found": found,
            "conditions": {"before": before, "after": environment.snapshot(), "restarts": RESTARTS},
        },
    )  # fmt: skip


def repeat(layers: int, runs: int, calls: Path, folder: Path) -> list[dict[str, Any]]:
    """So many sessions, each with its own noise floor, of the network against one with that many layers."""
    found = []
    for number in range(runs):
        place = folder / f"{layers}-{number}"
        floor = measure_noise(arm(LAYERS), calls, place / "noise", rule=RULE, seed=2 * number).noise_floor
        comparison = compare(
            arm(LAYERS), arm(layers), calls, place, rule=RULE, restarts=RESTARTS, noise_floor=floor, seed=2 * number + 1
        )
        found.append(record(comparison))
        told = json.dumps(found[-1])
        print(f"{datetime.datetime.now():%H:%M:%S}  {layers} layers, {number + 1} of {runs}: {told}", flush=True)
    print(dict(collections.Counter(run["verdict"] for run in found)))
    return found


def record(comparison: Comparison) -> dict[str, Any]:
    speedup = comparison.speedup
    return {
        "verdict": comparison.verdict.value, "value": round(speedup.value, 4), "low": round(speedup.low, 4),
        "high": round(speedup.high, 4), "noise_floor": round(comparison.noise_floor, 4), "blocks": comparison.blocks,
    }  # fmt: skip


if __name__ == "__main__":
    main()
