"""Networks on chips: from the command to a placed report, with the time that it took: python benchmarks/hardware.py

Writes benchmarks/results/hardware.json. The networks are trained here on the images of benchmarks/prepare.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import hardware_beside
import hardware_sparse
import vivace as vv
from prepare import mnist, pairs, trained
from vivace.devices.machine import cores_here, detect
from vivace.hardware.array.published import TPU_V1
from vivace.hardware.result import Synthesis
from vivace.measure import environment
from vivace.measure.clock import SystemClock
from vivace.report.silicon.hardware import document_of

RESULT = Path(__file__).parent / "results" / "hardware.json"
BATCH = 64
TRAINED = 600
"""Of the small digits, to train on."""
CHIP = "ecp5-85k"
SPARSE = "sparse"
"""What `--only` calls the unrolled network at several sparsities."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A network, and the time of one sample that it is to stay below."""

    name: str
    workload: Callable[[], vv.Workload]
    seconds: float


def mlp() -> nn.Module:
    """The classic one."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))


def cnn() -> nn.Module:
    """Two convolutions with batch normalization and pooling."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(16 * 7 * 7, 10),
    )  # fmt: skip


def tiny() -> nn.Module:
    """64 inputs, 32 hidden, 10 outputs."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def _mnist_work(name: str, network: Callable[[], nn.Module], epochs: int) -> vv.Workload:
    images, labels = mnist()
    images, cut = images.reshape(-1, 1, 28, 28), len(images) * 2 // 5
    model = trained(f"hardware-{name}", network, images[:cut], labels[:cut], epochs=epochs)
    held_out = pairs(images[cut:], labels[cut:], BATCH)
    return vv.Workload(model, inputs=(held_out[0][0],), data=held_out, metric=vv.metrics.accuracy, name=name)


def _digits() -> tuple[Tensor, Tensor]:
    """1,797 images [N, 1, 8, 8] and labels; the first 600 are to train on."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
    images = (torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16)[order]
    return images, torch.tensor(digits.target)[order]


def _digits_work() -> vv.Workload:
    images, labels = _digits()
    model = trained("hardware-64-32-10", tiny, images[:TRAINED], labels[:TRAINED], epochs=40)
    held_out = pairs(images[TRAINED:], labels[TRAINED:], BATCH)
    return vv.Workload(model, inputs=(held_out[0][0],), data=held_out, metric=vv.metrics.accuracy, name="64-32-10")


CASES = (
    Case("784-128-10", lambda: _mnist_work("784-128-10", mlp, 8), 100e-6),
    Case("mnist-cnn", lambda: _mnist_work("mnist-cnn", cnn, 4), 2e-3),
    Case("64-32-10", _digits_work, 1.5e-6),
)


def run(case: Case, chip: str) -> dict[str, object]:
    """One case: the document of its synthesis, and seconds from the command to the report, training left out."""
    work = case.workload()
    clock = SystemClock()
    started = clock.now()
    with tempfile.TemporaryDirectory() as folder:
        result = vv.synthesize(work, chip=chip, out=Path(folder) / "rtl", time="5m")
    taken = clock.now() - started
    print(told(case, result, taken), flush=True)
    document = document_of(result).model_dump(mode="json")
    document["out"] = None
    return {"case": case.name, "allowed_seconds": case.seconds, "taken_seconds": taken, "result": document}


def told(case: Case, result: Synthesis, taken: float) -> str:
    """One line about a case."""
    if result.latency_seconds is None or result.megahertz is None:
        return f"{case.name}: {result.status.value}, {taken:.0f} s"
    return (
        f"{case.name}: {result.latency_seconds * 1e6:.2f} us SIMULATED at {result.megahertz:.1f} MHz (allowed "
        f"{case.seconds * 1e6:g}), quality drop {result.quality.drop}, {taken:.0f} s from command to report"
    )


def conditions() -> dict[str, Any]:
    """The machine that a part of the result was made on."""
    return {
        "command": "python benchmarks/hardware.py",
        "processor": detect().processor,
        "cores": cores_here(),
        "load_average": environment.snapshot()["load_average"],
    }


def sparse(chip: str) -> Iterator[dict[str, Any]]:
    """Tables of an unrolled network at several sparsities with their conditions, a row more each time."""
    images, labels = (part[:TRAINED] for part in _digits())
    found = []
    for row in hardware_sparse.rows(_digits_work(), chip, images, labels):
        how = "unrolled" if row["unrolled"] else "folded"
        tables, zeros, right = row["resources"]["tables"], row["sparsity"], row["accuracy"]
        print(f"{how}, {zeros:.0%} zeros: {tables:,} tables, accuracy {right:.1%}", flush=True)
        found.append(row)
        yield {"network": "64-32-10", "layers": hardware_sparse.LAYERS, "chip": chip, **conditions(), "rows": found}


def write(document: dict[str, Any]) -> None:
    """Keep the result."""
    RESULT.write_text(json.dumps(document, indent=1) + "\n")


def main() -> None:
    """Run the cases that were asked for, and keep those of earlier runs that were not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[*(case.name for case in CASES), SPARSE])
    parser.add_argument("--chip", default=CHIP)
    parser.add_argument(
        "--peer", help="a Python with hls4ml 1.3.0 installed: its emulation of 64-32-10 is compared too"
    )
    arguments = parser.parse_args()
    kept = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    found = {entry["case"]: entry for entry in kept.get("cases", [])}
    for case in CASES:
        if case.name in arguments.only:
            found[case.name] = run(case, arguments.chip)
            kept["conditions"] = conditions()
    if SPARSE in arguments.only:
        for kept["sparse"] in sparse(arguments.chip):
            write(kept)
    if arguments.peer:
        kept["beside_hls4ml"] = {"machine": conditions(), **hardware_beside.compared(_digits_work(), arguments.peer)}
        print(json.dumps(kept["beside_hls4ml"], indent=1))
    kept["tpu_v1"] = [one.sentence() for one in TPU_V1]
    write({**kept, "cases": list(found.values())})
    print("the array's cycle model beside TPU v1 as published (PREDICTED):", *kept["tpu_v1"], sep="\n  ")


if __name__ == "__main__":
    main()
