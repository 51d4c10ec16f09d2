"""The benchmark of training: `vivace.train` beside the same training as others write it, over seeds.

python benchmarks/training.py                          # an hour or two on two cores; goes on where it was stopped
python benchmarks/training.py --quick --only mnist     # one seed, a few epochs: to see that it works
python benchmarks/training.py --peers-python /path/to/python   # one with Keras, TensorFlow and JAX
python benchmarks/training.py --table                  # writes the table into README.md from what is there

Every run is a fresh process, one at a time, and the arms take turns within each seed. Evaluation is never in the times.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import training_table
from inference import keep, say
from prepare import HERE, WORK
from training_table import RESULTS
from vivace.cli.doctor import examine
from vivace.measure import environment

WORKLOADS = ("mnist", "photos", "gpt")
ON_CARD = ("card_images", "card_gpt")
"""Those that need a CUDA device."""
ARM = HERE / "trainings" / "arm.py"
KERAS_ARM = HERE / "trainings" / "keras_mnist.py"
OURS = "vivace"
ARM_SECONDS = 3600
"""The most that one run may take before it is left out."""


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much to spend: seeds, epochs of each run (None: the workload's own), and time for choosing the plan."""

    seeds: int = 5
    epochs: int | None = None
    time: str | None = None


QUICK = Effort(seeds=1, epochs=3, time="20s")


def main() -> None:
    options = parse()
    if options.table:
        print(training_table.write(folder=options.results))
        return
    effort = QUICK if options.quick else Effort(options.seeds)
    for name in options.only:
        Bench(name, effort, options.peers_python, options.arms, options.results).run(options.again)
    print(training_table.table(training_table.read_results(options.results)))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=(*WORKLOADS, *ON_CARD), default=WORKLOADS, metavar="NAME")
    parser.add_argument("--arms", nargs="+", metavar="ARM", help="some arms only, beside vivace")
    parser.add_argument("--seeds", type=int, default=5, help="seeds of each arm (default 5)")
    parser.add_argument("--quick", action="store_true", help="one seed and few epochs, to see that it works")
    parser.add_argument("--again", action="store_true", help="do again what is already there")
    parser.add_argument("--peers-python", default=sys.executable, help="the Python that has TensorFlow and JAX")
    parser.add_argument("--table", action="store_true", help="only write the table into README.md")
    parser.add_argument("--results", type=Path, help="folder of results (default benchmarks/results)")
    options = parser.parse_args()
    options.results = options.results or (WORK / "quick" if options.quick else RESULTS)
    options.results.mkdir(parents=True, exist_ok=True)
    return options


@dataclasses.dataclass(frozen=True)
class Bench:
    """One workload: the plan is chosen once, then every arm runs with every seed. Finished runs are kept."""

    name: str
    effort: Effort
    peers_python: str
    arms: Sequence[str] | None
    results: Path

    def run(self, again: bool = False) -> None:
        """Do what is missing, and write the result's file."""
        if again:
            self.journal.unlink(missing_ok=True)
        done = self.read()
        machine = examine(measured=True)
        kind = "cuda" if self.name in ON_CARD else "cpu"
        of_kind = [one for one in machine.ceilings if one.device == kind]
        ceilings, narrow = (
            {str(one.threads): one.gflops[name] for one in of_kind if name in one.gflops} for name in ("f32", "bf16")
        )
        before = environment.snapshot()
        if ("choose", 0) not in done:
            say(f"{self.name}: choosing a plan, {self.time}")
            self.write("choose", 0, self.choose())
        for seed in range(self.effort.seeds):
            for arm in self.order(seed):
                if (arm, seed) not in self.read():
                    found = self.one(arm, seed)
                    self.write(arm, seed, found)
                    say(f"{self.name}: {arm}, seed {seed}: {_line(found)}")
        keep(self.results / f"training-{self.name}.json", {
            **summary(self.workload, self.name, self.read(), self.effort.seeds, ceilings, narrow),
            "conditions": {"before": before, "after": environment.snapshot(), "effort": dataclasses.asdict(self.effort),
                           "time": self.time, "command": f"python benchmarks/training.py --only {self.name}"},
        })  # fmt: skip

    @property
    def workload(self) -> Any:
        return importlib.import_module(f"trainings.{self.name}")

    @property
    def journal(self) -> Path:
        return self.results / f"training-{self.name}.jsonl"

    @property
    def epochs(self) -> int:
        epochs: int = self.effort.epochs or self.workload.EPOCHS
        return epochs

    @property
    def time(self) -> str:
        time: str = self.effort.time or self.workload.TRIED
        return time

    def order(self, seed: int) -> list[str]:
        """All arms, beginning with another one for each seed."""
        known = [OURS, *self.workload.ARMS, *(f"keras-{backend}" for backend in self.workload.KERAS)]
        arms = [arm for arm in known if self.arms is None or arm in (OURS, *self.arms)]
        return arms[seed % len(arms) :] + arms[: seed % len(arms)]

    def read(self) -> dict[tuple[str, int], dict[str, Any]]:
        """What was run with this many epochs."""
        if not self.journal.is_file():
            return {}
        rows = [json.loads(line) for line in self.journal.read_text().splitlines()]
        return {(row["arm"], row["seed"]): row["found"] for row in rows if row["epochs"] == self.epochs}

    def write(self, arm: str, seed: int, found: Mapping[str, Any]) -> None:
        row = {"arm": arm, "seed": seed, "epochs": self.epochs, "found": found}
        with self.journal.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def choose(self) -> dict[str, Any]:
        seeds = str(max(3, self.effort.seeds) if self.effort.seeds > 1 else 0)
        found = self.started([sys.executable, str(ARM), self.name, "choose", self.time, seeds])
        if "left_out" in found:
            raise SystemExit(f"{self.name}: {found['left_out']}")
        return found

    def started(self, command: Sequence[str], variables: Mapping[str, str] | None = None) -> dict[str, Any]:
        """`started`, with the card hidden from what is for processors."""
        return started(command, (variables or {}) | ({} if self.name in ON_CARD else {"CUDA_VISIBLE_DEVICES": ""}))

    def one(self, arm: str, seed: int) -> dict[str, Any]:
        """One arm with one seed, in a process of its own. What it caches (samples, compiled code) begins empty, or
        another run would pay for what this one is credited with."""
        with tempfile.TemporaryDirectory(prefix="vivace-") as cold:
            caches = {"XDG_CACHE_HOME": cold, "TORCHINDUCTOR_CACHE_DIR": str(Path(cold) / "inductor")}
            numbers = [str(seed), str(self.epochs)]
            if arm == OURS:
                plan = json.dumps(self.read()["choose", 0]["plan"])
                return self.started([sys.executable, str(ARM), self.name, OURS, *numbers, plan], caches)
            if not arm.startswith("keras-"):
                return self.started([sys.executable, str(ARM), self.name, arm, *numbers], caches)
            backend = arm.removeprefix("keras-")
            python = sys.executable if backend == "torch" else self.peers_python
            command = [python, str(KERAS_ARM), str(arrays(self.workload)), *numbers]
            return self.started(command, {**caches, "KERAS_BACKEND": backend})


def arrays(workload: Any) -> Path:
    """A workload's data as a file of NumPy's, for processes that have no PyTorch."""
    images, labels, held_images, held_labels = (tensor.numpy() for tensor in workload.split())
    file = WORK / f"mnist-{len(images)}.npz"
    if not file.is_file():
        WORK.mkdir(parents=True, exist_ok=True)
        np.savez(file, images=images, labels=labels, held_images=held_images, held_labels=held_labels)
    return file


def started(command: Sequence[str], variables: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run a program that ends with a line of JSON; {"left_out": why} where it fails."""
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **quiet, **(variables or {})},
            capture_output=True,
            text=True,
            timeout=ARM_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return {"left_out": f"it took longer than {ARM_SECONDS} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return {"left_out": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def summary(
    workload: Any,
    name: str,
    runs: Mapping[tuple[str, int], Mapping[str, Any]],
    seeds: int,
    ceilings: Mapping[str, float],
    narrow_ceilings: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """What a result's file holds: every arm's times and scores over seeds, ours over each peer, the plan's proofs.
    A plan with products in bfloat16 has its share of that ceiling too (`narrow_ceilings`)."""
    chosen = runs["choose", 0]
    of_arms: dict[str, list[Mapping[str, Any]]] = {}
    for (arm, seed), found in sorted(runs.items(), key=lambda item: item[0][1]):
        if arm != "choose" and seed < seeds:
            of_arms.setdefault(arm, []).append(found)
    arms = {arm: of_arm(found, workload.TARGET) for arm, found in of_arms.items()}
    flops_an_epoch = chosen["diagnosis"]["flops"] * -(-len(workload.job(0).data) // workload.BATCH)
    return {
        "workload": name, "target": workload.TARGET, "batch": workload.BATCH, "seeds": seeds, "chosen": chosen,
        "flops_an_epoch": flops_an_epoch, "ceilings_gflops": dict(ceilings), "arms": arms,
        "ours_over": {arm: over(arms[OURS], other) for arm, other in arms.items() if arm != OURS and "times" in other},
        "share_of_ceiling": share(arms[OURS], flops_an_epoch, max(ceilings.values())),
        "narrow_ceilings_gflops": dict(narrow_ceilings or {}),
        "share_of_narrow_ceiling": share(arms[OURS], flops_an_epoch, max(narrow_ceilings.values()))
        if narrow_ceilings and any(one["technique"] == "bfloat16" for one in chosen.get("plan", [])) else None,
    }  # fmt: skip


def of_arm(found: Sequence[Mapping[str, Any]], target: float) -> dict[str, Any]:
    """One arm: its runs, and figures over its seeds. One that failed with any seed is left out, or ratios would be of
    different seeds."""
    failed = [one["left_out"] for one in found if "left_out" in one]
    if len(failed) == len(found):
        return {"left_out": failed[0]}
    if failed:
        return {"left_out": f"{len(failed)} of {len(found)} runs: {failed[0]}"}
    ran = list(found)
    times = [dict(figures(one, target)) for one in ran]
    return {
        "times": {key: [one[key] for one in times] for key in times[0]},
        "means": {key: over_seeds([one[key] for one in times]) for key in times[0]},
        "runs": ran,
    }


def figures(run: Mapping[str, Any], target: float) -> Iterator[tuple[str, float | None]]:
    """Seconds of a run: an epoch after compilation, compilation and preparation apart, totals, and up to the target."""
    epochs, scores, prepare = run["epoch_seconds"], run["scores"], run["prepare_seconds"]
    steady = statistics.median(epochs[1:] or epochs)
    yield "epoch_seconds", steady
    yield "compile_seconds", prepare + max(0.0, epochs[0] - steady)
    for count in (5, 20):
        yield f"total_{count}_seconds", prepare + sum(epochs[:count]) if len(epochs) >= count else None
    reached = next((number for number, score in enumerate(scores, 1) if score >= target), None)
    yield "to_target_seconds", None if reached is None else prepare + sum(epochs[:reached])
    yield "final_score", scores[-1]
    yield "peak_bytes", run["peak_bytes"]


def over_seeds(values: Sequence[float | None]) -> dict[str, float] | None:
    """The mean with its 95% interval by Student's t; None where a seed has no value. One seed has no interval."""
    if any(value is None for value in values):
        return None
    given = [float(value) for value in values if value is not None]
    mean = statistics.fmean(given)
    if len(given) < 2:
        return {"value": mean}
    from scipy import stats

    half = stats.t.ppf(0.975, len(given) - 1) * statistics.stdev(given) / len(given) ** 0.5
    return {"value": mean, "low": mean - half, "high": mean + half}


def over(ours: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """How many times faster ours is than another arm, seed by seed: the geometric mean with its 95% interval."""
    return {
        key: ratio(other["times"][key], ours["times"][key])
        for key in ("epoch_seconds", "total_5_seconds", "total_20_seconds", "to_target_seconds")
        if "times" in ours
    }


def ratio(theirs: Sequence[float | None], own: Sequence[float | None]) -> dict[str, float] | None:
    """exp of the mean logarithm of their seconds over ours.

    >>> ratio([4.0], [2.0])
    {'value': 2.0}
    """
    pairs = [(one, other) for one, other in zip(theirs, own, strict=False) if one is not None and other is not None]
    if not pairs or len(pairs) < len(own):
        return None
    found = over_seeds([float(np.log(one / other)) for one, other in pairs])
    return None if found is None else {key: round(float(np.exp(value)), 4) for key, value in found.items()}


def share(ours: Mapping[str, Any], flops_an_epoch: float, gflops: float) -> float | None:
    """The least time that the counted operations take at the ceiling of all threads, over an epoch of ours."""
    if "means" not in ours:
        return None
    epoch: float = ours["means"]["epoch_seconds"]["value"]
    return flops_an_epoch / (gflops * 1e9) / epoch


def _line(found: Mapping[str, Any]) -> str:
    if "left_out" in found:
        return f"left out: {found['left_out']}"
    return (
        f"{sum(found['epoch_seconds']):.2f} s of {len(found['epoch_seconds'])} epochs, score {found['scores'][-1]:.4f}"
    )


if __name__ == "__main__":
    main()
