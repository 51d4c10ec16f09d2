"""Where the time of a compiled step goes: between two barriers, what each thread computes and how long it waits.

python benchmarks/step_phases.py                 # the 784-128-10 network on MNIST, in float32 and in bfloat16
python benchmarks/step_phases.py --epochs 40     # more steps; OMP_NUM_THREADS=1 for one thread

A clock is read at each barrier, which takes some 50 ns of every phase. Writes results/step-phases.json.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import functools
import json
from collections.abc import Sequence
from typing import Any

import torch

from inference import keep
from training_table import RESULTS
from trainings import mnist
from vivace.core.plan import Plan
from vivace.devices import machine
from vivace.measure import environment
from vivace.techniques.compile import native_step
from vivace.techniques.feed.sample_cache import SampleCache
from vivace.techniques.precision.bfloat16 import Bfloat16
from vivace.training.loop import Loop
from vivace.training.native.compiled import Compiled, compiled
from vivace.training.rig import assemble
from vivace.training.service import equip

MOST = 64
"""Phases of a step that there is room for."""
CLOCK = """
extern "C" { unsigned long long worked[THREADS][64], waited[THREADS][64]; }
static unsigned long long before[THREADS][8];
static inline unsigned long long lap(int t) {
  timespec now; clock_gettime(CLOCK_MONOTONIC, &now);
  const unsigned long long found = now.tv_sec * 1000000000ull + now.tv_nsec, past = found - before[t][0];
  before[t][0] = found;
  return past;
}
"""
STEP = "static void one_step(const int t, const long s) {"


def with_clocks(source: str) -> tuple[str, int]:
    """A step's source that adds up nanoseconds before and in each barrier; and how many barriers there are."""
    head, _, rest = source.partition(STEP)
    body, _, tail = rest.partition("\n}\n")
    count, lines = 0, ["  lap(t);"]
    for line in body.split("\n"):
        if line.strip() == "barrier();":
            line = f"  worked[t][{count}] += lap(t); barrier(); waited[t][{count}] += lap(t);"
            count += 1
        lines.append(line)
    if "barrier();" not in body:
        lines.append("  worked[t][0] += lap(t);")
        count = 1
    return "\n".join([head + CLOCK + STEP, *lines, "}", tail]), count


def phases(techniques: Sequence[Any], epochs: int) -> dict[str, Any]:
    """Microseconds of each phase of a step, by threads: computing and waiting."""
    made: list[tuple[Compiled, int]] = []

    def build(source: str, compiler: str, flags: Sequence[str]) -> Compiled:
        timed, count = with_clocks(source)
        made.append((compiled(timed, compiler, flags), count))
        return made[-1][0]

    job = dataclasses.replace(mnist.job(0), evaluate=None, epochs=epochs)
    plan = Plan.of([SampleCache(), *techniques, native_step.NativeStep()])
    rig = equip(assemble(job), job, plan)
    rig.gradients._build = functools.partial(  # type: ignore[union-attr]
        build,
        **rig.gradients._build.keywords,  # type: ignore[union-attr]
    )
    loop = Loop(job, rig, None, "")
    for _ in range(epochs):
        loop.advance(10**6)
    (step, count), threads = made[0], min(torch.get_num_threads(), machine.detect().cores_allowed)
    table = (ctypes.c_ulonglong * MOST) * threads
    told = {
        name: [
            [round(table.in_dll(step.library, name)[t][place] / loop.position.steps / 1e3, 2) for place in range(count)]
            for t in range(threads)
        ]
        for name in ("worked", "waited")
    }
    whole = sum(told["worked"][0]) + sum(told["waited"][0])
    return {"plan": str(plan), "threads": threads, "steps": loop.position.steps, "step_us": round(whole, 1), **told}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=12)
    epochs = parser.parse_args().epochs
    found = {"float32": phases([], epochs)}
    if "avx512_bf16" in machine.detect().instructions:
        found["bfloat16"] = phases([Bfloat16()], epochs)
    keep(RESULTS / "step-phases.json", {"steps": found, "conditions": environment.snapshot()})
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
