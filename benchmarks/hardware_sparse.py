"""What zero weights save in an unrolled network: 64-32-10 pruned without a pattern, at several shares of zeros.

The same networks folded stand beside it: there zeros save nothing.
"""

from __future__ import annotations

import copy
import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import vivace as vv
from prepare import trained
from vivace.hardware.result import Synthesis

SPARSITIES = (0.9, 0.8, 0.5, 0.0)
EPOCHS = 40
LAYERS = ("1", "3")
VECTORS = 10_000


def rows(work: vv.Workload, chip: str, images: Tensor, labels: Tensor) -> Iterator[dict[str, Any]]:
    """Folded at the largest and the least share of zeros, then unrolled at each: tables by synthesis, the proof, and
    accuracy. Trained again on the images given."""
    for unrolled, sparsities in ((False, (SPARSITIES[0], SPARSITIES[-1])), (True, SPARSITIES)):
        for sparsity in sparsities:
            model = pruned(work.model, sparsity, images, labels)
            with tempfile.TemporaryDirectory() as folder:
                result = vv.synthesize(
                    dataclasses.replace(work, model=model, name=f"64-32-10 at {sparsity:.0%}"), chip=chip,
                    out=Path(folder) / "rtl", time="30m", placing=False, vectors=VECTORS,
                    unroll=LAYERS if unrolled else (),
                )  # fmt: skip
            yield {"unrolled": unrolled, **row(model, result)}


def pruned(model: nn.Module, sparsity: float, images: Tensor, labels: Tensor) -> nn.Module:
    """A copy without its smallest weights, layer by layer, trained again with those kept at zero."""
    if sparsity == 0:
        return model

    def build() -> nn.Module:
        found = copy.deepcopy(model)
        for layer in LAYERS:
            prune.l1_unstructured(found.get_submodule(layer), "weight", amount=sparsity)
        return found

    found = trained(f"hardware-64-32-10-pruned-{sparsity}", build, images, labels, epochs=EPOCHS)
    for layer in LAYERS:
        prune.remove(found.get_submodule(layer), "weight")
    return found


def row(model: nn.Module, result: Synthesis) -> dict[str, Any]:
    """What is kept of one synthesis."""
    weights = torch.cat([model.get_parameter(f"{layer}.weight").flatten() for layer in LAYERS])
    if result.resources is None or result.proof is None:
        raise SystemExit(f"{result.name} was not built: {result.quality.reason}")
    return {
        "sparsity": float((weights == 0).float().mean()),
        "resources": dataclasses.asdict(result.resources),
        "latency_cycles": result.latency_cycles,
        "vectors_without_a_difference": result.proof.vectors,
        "accuracy_of_pytorch": result.quality.baseline,
        "accuracy": result.quality.candidate,
        "samples": result.quality.samples,
        "seconds": dict(result.seconds),
    }
