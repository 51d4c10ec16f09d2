"""What padding calls of many shapes to few is worth beside a compiler whose code for exact shapes is faster.

python benchmarks/shapes.py             # some minutes; writes results/shapes.json

MiniLM with its published weights, sentences of 16 lengths from 8 to 68 tokens equally often. For each compiler two
plans in fresh pairs of processes: with `buckets` and without, on the same mix. The ratio is how many times as fast the
plan with buckets is; what was refused or does not apply is said.
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

import torch

import vivace as vv
from inference import keep
from training_table import RESULTS
from vivace.api.request import plan_of
from vivace.core.errors import VivaceError
from vivace.measure import environment
from workloads import text_encoder

LENGTHS = range(8, 72, 4)
COMPILERS = ("openvino", "onnx-runtime", "inductor")
COUNTS = (4, 1)


def workload() -> vv.Workload:
    """The encoder with token numbers of every length; 0 is padding, which it masks by itself."""
    model = text_encoder.encoder(text_encoder.model_folder())
    generator = torch.Generator().manual_seed(0)
    shapes = [torch.randint(1000, 20_000, (1, length), generator=generator) for length in LENGTHS]
    return vv.Workload(model, mix=[((tokens,), 1.0) for tokens in shapes], name="text-encoder-lengths")


def compared(work: vv.Workload, compiler: str, count: int, time: str) -> dict[str, Any]:
    """The plan with so many buckets against that without."""
    alone = plan_of([compiler])
    padded = plan_of([{"technique": "buckets", "settings": {"count": count}}, compiler])
    record: dict[str, Any] = {"compiler": compiler, "buckets": count}
    try:
        found = vv.measure(alone, padded, work=work, time=time)
    except VivaceError as error:
        print(f"{compiler} with {count} buckets: {error}")
        return record | {"reason": str(error)}
    print(f"{compiler} with {count} buckets: {found.speedup} {found.verdict.value}; {found.note}")
    return record | {
        "speedup": dataclasses.asdict(found.speedup), "verdict": found.verdict.value, "note": found.note,
        "alone_ms": 1000 * found.baseline.median_seconds, "padded_ms": 1000 * found.candidate.median_seconds,
    }  # fmt: skip


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    options.add_argument("--time", default="20s", help="how long the blocks of one comparison may take (%(default)s)")
    time = options.parse_args().time
    work = workload()
    rows = [compared(work, compiler, count, time) for compiler in COMPILERS for count in COUNTS]
    keep(RESULTS / "shapes.json", {"rows": rows, "conditions": {"after": environment.snapshot()}})


if __name__ == "__main__":
    main()
