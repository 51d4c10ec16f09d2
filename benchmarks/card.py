"""The benchmark of training on a CUDA device: what each technique brings, and whole trainings beside eager PyTorch.

python benchmarks/card.py                              # minutes on one card
python benchmarks/card.py --only card_gpt --seeds 5

Each workload's techniques are added one by one; the steps of each plan take turns with the original's in one process.
Then every arm trains from each seed, arms taking turns; evaluation is in no time, and compiling is.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

import turns
import vivace as vv
from inference import keep, say
from prepare import WORK
from training import ON_CARD, over, over_seeds
from training_table import RESULTS
from trainings.course import peak_bytes
from vivace.api.request import plan_of
from vivace.core.errors import NotApplicable
from vivace.core.plan import Plan
from vivace.devices.ceilings import measure_device_ceiling
from vivace.devices.machine import detect
from vivace.measure.clock import quiet_collector, time_device_block
from vivace.measure.services.probe import fastest_device_seconds
from vivace.search.training.choose import added as with_it
from vivace.search.training.choose import facts_of
from vivace.training.loop import Loop, score_of
from vivace.training.rig import assemble
from vivace.training.service import equip
from vivace.training.step import around

WARM_STEPS, BLOCKS, BLOCK_SECONDS = 8, 10, 0.1
LEDGER = {
    "card_images": [
        "sample-cache", "sample-prefetch", "cuda-bfloat16", "channels-last", "fused-optimizer",
        {"technique": "compiled-training", "settings": {"scope": "loss"}}, "captured-step",
    ],
    "card_gpt": [
        "sample-cache", "sample-prefetch", "tf32", "cuda-bfloat16", "fused-optimizer",
        {"technique": "compiled-training", "settings": {"scope": "loss"}}, "captured-step",
    ],
}  # fmt: skip
"""In the order in which they are added. What cannot be added, or is not faster, is told and left out."""
LEAST_GAIN = 1.01


class Steps:
    """A job with a plan, whose steps can be taken block by block."""

    def __init__(self, job: vv.Training, plan: Plan, endless: bool = True) -> None:
        torch._dynamo.reset()
        kept = dataclasses.replace(job, epochs=10**9, evaluate=None) if endless else job
        began = time.perf_counter()
        self.loop = Loop(kept, equip(assemble(kept), kept, plan), None, "")
        self._take(1)
        torch.cuda.synchronize()
        self.prepare_seconds = time.perf_counter() - began

    def warm(self) -> None:
        self._take(WARM_STEPS)
        torch.cuda.synchronize()

    def block(self, count: int) -> float:
        """Seconds a step, of so many that follow each other as in a training."""
        with around(self.loop.rig.outside), quiet_collector():
            return time_device_block(lambda _: self._one(), range(count))[0]

    def _take(self, count: int) -> None:
        with around(self.loop.rig.outside):
            for _ in range(count):
                self._one()

    def _one(self) -> None:
        if self.loop.step() is None:
            self.loop.advance(1)  # which ends the epoch, and takes no step
            self.loop.step()


def main() -> None:
    options = parse()
    for name in options.only:
        say(f"{name}: ledger")
        workload = importlib.import_module(f"trainings.{name}")
        plan, rows = ledger(name, workload.job(0))
        say(f"{name}: parity of {plan}")
        proof = vv.parity(workload.job(0), plan) if len(plan) else None
        document = {
            "workload": name, "card": torch.cuda.get_device_name(), "batch": workload.BATCH, "plan": str(plan),
            "ceiling": dataclasses.asdict(measure_device_ceiling(fastest_device_seconds)), "ledger": rows,
            "parity": proof and {"verdict": proof.verdict.value, "reason": proof.reason},
            **trained(workload, plan, options.seeds),
            "conditions": {"seeds": options.seeds, "blocks": BLOCKS, "block_seconds": BLOCK_SECONDS,
                           "command": f"python benchmarks/card.py --only {name} --seeds {options.seeds}"},
        }  # fmt: skip
        keep(options.results / f"training-{name}.json", document)
        say(f"{name}: {document['ours_over']}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=ON_CARD, default=ON_CARD, metavar="NAME")
    parser.add_argument("--seeds", type=int, default=5, help="seeds of each arm (default 5)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of results (default benchmarks/results)")
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    WORK.mkdir(parents=True, exist_ok=True)
    return options


def ledger(name: str, job: vv.Training) -> tuple[Plan, list[dict[str, Any]]]:
    """The plan that is left when each technique had its turn, and what each brought over the plan before it."""
    original = Steps(job, Plan())
    original.warm()
    best, best_steps, rows = Plan(), original, list[dict[str, Any]]()
    facts = facts_of(detect(), "cuda")
    for technique in LEDGER[name]:
        (added,) = plan_of([technique])
        plan = with_it(best, (added,), facts)
        if plan is None:
            rows.append({"technique": str(added), "kept": False, "reason": f"it cannot stand beside {best}"})
            continue
        row: dict[str, Any] = {"technique": str(added), "plan": str(plan)}
        try:
            steps = Steps(job, plan)
            steps.warm()
        except (NotApplicable, RuntimeError) as error:
            rows.append(row | {"kept": False, "reason": str(error)[:300]})
            say(f"{name}: {added}: {str(error)[:120]}")
            continue
        over_best, over_original = gain(best_steps, steps), gain(original, steps)
        kept = over_best["low"] > LEAST_GAIN
        rows.append(
            row | {"kept": kept, "prepare_seconds": steps.prepare_seconds, "over_plan_before": over_best,
                   "over_original": over_original}
        )  # fmt: skip
        values = over_best["value"], over_original["value"]
        say(f"{name}: {added}: {values[0]:.3f} over the plan before, {values[1]:.3f} over the original")
        if kept:
            best, best_steps = plan, steps
    return best, rows


def gain(one: Steps, other: Steps) -> dict[str, float]:
    """How many times faster the second one's steps are, in blocks that take turns (ABBA)."""
    counts = [max(2, int(BLOCK_SECONDS / steps.block(4))) for steps in (one, other)]
    found = turns.ratio(lambda: one.block(counts[0]), lambda: other.block(counts[1]), BLOCKS)
    return {**found, "step_seconds": other.block(counts[1])}


def trained(workload: Any, plan: Plan, seeds: int) -> dict[str, Any]:
    """Every arm from every seed, and ours over each other, seed by seed."""
    arms: dict[str, Callable[[int], dict[str, Any]]] = {"vivace": lambda seed: ours(workload, plan, seed)}
    for name, arm in workload.ARMS.items():
        arms[name] = lambda seed, arm=arm: arm(seed, workload.EPOCHS).document()  # type: ignore[misc]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in arms}
    for seed in range(seeds):
        for name in itertools.islice(itertools.cycle(arms), seed % len(arms), seed % len(arms) + len(arms)):
            torch.cuda.reset_peak_memory_stats()
            found = arms[name](seed)
            runs[name].append({**found, "device_peak_bytes": torch.cuda.max_memory_allocated()})
            told = f"{sum(found['epoch_seconds']):.2f} s, {found['scores'][-1]:.4f}"
            say(f"{workload.__name__}: {name}, seed {seed}: {told}")
    times = {name: {key: [dict(figures(run, workload.TARGET))[key] for run in found] for key in FIGURES}
             for name, found in runs.items()}  # fmt: skip
    return {
        "epochs": workload.EPOCHS, "target": workload.TARGET, "runs": runs,
        "means": {name: {key: over_seeds(values) for key, values in found.items()} for name, found in times.items()},
        "ours_over": {name: over({"times": times["vivace"]}, {"times": found})
                      for name, found in times.items() if name != "vivace"},
    }  # fmt: skip


FIGURES = ("epoch_seconds", "total_5_seconds", "total_20_seconds", "to_target_seconds", "final_score")


def figures(run: dict[str, Any], target: float) -> Iterator[tuple[str, float | None]]:
    from training import figures as of_run

    yield from ((key, value) for key, value in of_run(run, target) if key in FIGURES)


def ours(workload: Any, plan: Plan, seed: int) -> dict[str, Any]:
    """A training with the plan by the loop that `vivace.train` runs, in this process."""
    job = workload.job(seed)
    steps = Steps(dataclasses.replace(job, evaluate=None), plan, endless=False)
    epochs, scores = list[float](), list[float]()
    for _ in range(workload.EPOCHS):
        began = time.perf_counter()
        steps.loop.advance(10**9)
        torch.cuda.synchronize()
        epochs.append(time.perf_counter() - began)
        scores.append(score_of(job, steps.loop.rig.model))
    found = {"prepare_seconds": steps.prepare_seconds, "epoch_seconds": epochs, "scores": scores}
    return {**found, "peak_bytes": peak_bytes()}


if __name__ == "__main__":
    main()
