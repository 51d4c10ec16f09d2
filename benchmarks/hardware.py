"""Networks on chips: from the command to a placed report, with the time that it took: python benchmarks/hardware.py

Writes benchmarks/results/hardware.json. The networks are trained here on the images of benchmarks/prepare.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

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
CHIP = "ecp5-85k"


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


def _digits_work(name: str, network: Callable[[], nn.Module]) -> vv.Workload:
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
    images = (torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16)[order]
    labels = torch.tensor(digits.target)[order]
    model = trained(f"hardware-{name}", network, images[:600], labels[:600], epochs=40)
    held_out = pairs(images[600:], labels[600:], BATCH)
    return vv.Workload(model, inputs=(held_out[0][0],), data=held_out, metric=vv.metrics.accuracy, name=name)


CASES = (
    Case("784-128-10", lambda: _mnist_work("784-128-10", mlp, 8), 100e-6),
    Case("mnist-cnn", lambda: _mnist_work("mnist-cnn", cnn, 4), 2e-3),
    Case("64-32-10", lambda: _digits_work("64-32-10", tiny), 1.5e-6),
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


def hls4ml(python: str) -> dict[str, object]:
    """How far hls4ml's C++ emulation of 64-32-10 is from PyTorch, by its precision."""
    work = _digits_work("64-32-10", tiny)
    images, labels = (torch.cat(parts) for parts in zip(*work.data, strict=True))
    with tempfile.TemporaryDirectory() as folder:
        weights, inputs = Path(folder) / "weights.safetensors", Path(folder) / "inputs.safetensors"
        save_file(work.model.state_dict(), weights)
        save_file({"images": images.contiguous(), "labels": labels.contiguous()}, inputs)
        script = Path(__file__).with_name("hls4ml_emulation.py")
        done = subprocess.run([python, script, weights, inputs], capture_output=True, text=True, timeout=600)
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1]}
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(found, indent=1))
    return found


def told(case: Case, result: Synthesis, taken: float) -> str:
    """One line about a case."""
    if result.latency_seconds is None or result.megahertz is None:
        return f"{case.name}: {result.status.value}, {taken:.0f} s"
    return (
        f"{case.name}: {result.latency_seconds * 1e6:.2f} us SIMULATED at {result.megahertz:.1f} MHz (allowed "
        f"{case.seconds * 1e6:g}), quality drop {result.quality.drop}, {taken:.0f} s from command to report"
    )


def main() -> None:
    """Run the cases that were asked for, and keep those of earlier runs that were not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[case.name for case in CASES])
    parser.add_argument("--chip", default=CHIP)
    parser.add_argument(
        "--peer", help="a Python with hls4ml 1.3.0 installed: its emulation of 64-32-10 is compared too"
    )
    arguments = parser.parse_args()
    kept = json.loads(RESULT.read_text()) if RESULT.is_file() else {"cases": []}
    found = {entry["case"]: entry for entry in kept["cases"]}
    for case in CASES:
        if case.name in arguments.only:
            found[case.name] = run(case, arguments.chip)
    machine = detect()
    conditions = {
        "command": "python benchmarks/hardware.py",
        "processor": machine.processor,
        "cores": cores_here(),
        "load_average": environment.snapshot()["load_average"],
    }
    emulated = hls4ml(arguments.peer) if arguments.peer else kept.get("hls4ml")
    told = [one.sentence() for one in TPU_V1]
    document = {"conditions": conditions, "cases": list(found.values()), "hls4ml": emulated, "tpu_v1": told}
    RESULT.write_text(json.dumps(document, indent=1) + "\n")
    print("the array's cycle model beside TPU v1 as published (PREDICTED):", *told, sep="\n  ")


if __name__ == "__main__":
    main()
