"""Runs the program in XLA, by way of JAX: on a TPU where there is one, on the CPU here."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator

from vivace.core.cost import Cost
from vivace.core.errors import NotApplicable
from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.program import Model
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.work import Work
from vivace.data import samples
from vivace.runtimes.onnx_graph import conversion_folder
from vivace.runtimes.xla import stablehlo
from vivace.techniques.graph import torch_program

MOST_COMPILATIONS = 4
"""For the numbers of samples that calls most often have, beside the one for a single sample."""


@dataclasses.dataclass(frozen=True)
class Xla(Technique):
    """The graph as StableHLO, which XLA compiles when it is loaded, for a few numbers of samples.

    The artifact holds no machine code: it runs on whatever JAX finds where it is loaded, a CPU, a GPU or a TPU. Raises
    NotApplicable for an operator that has no translation here, for a free dimension beside the number of samples, and
    with chosen threads, copies or inference mode, which would change nothing; MissingExtra without JAX.

    Source: https://docs.jax.dev/en/latest/export/export.html and https://openxla.org/stablehlo, read in November 2026.

    >>> Xla.name()
    'xla'
    """

    stage = Stage.COMPILE
    family = Family.HARDWARE
    effect = Effect.ROUNDED
    needs = frozenset({Fact.TORCH_GRAPH, Fact.UNCOMPILED, Fact.ON_CPU})
    breaks = frozenset({Fact.TORCH_GRAPH, Fact.UNCOMPILED, Fact.ONNX_READY, Fact.OPENVINO_READY})
    source = "https://docs.jax.dev/en/latest/export/export.html"
    packages = ("jax", "jaxlib")
    extra = "tpu"

    @classmethod
    def variants(cls, work: Work, machine: Machine) -> Iterator[Technique]:
        """None on a machine with a TPU, where JAX runs programs on that: see `tpu`."""
        if not machine.tpus:
            yield cls()

    def rewrite(self, cost: Cost) -> Cost:
        """Fused operators, launched by native code; a call crosses from PyTorch to JAX and back."""
        return cost.replace(
            operators=max(1, cost.operators // 2),
            operator_seconds=min(cost.operator_seconds, 2e-6),
            call_seconds=max(cost.call_seconds, 1e-4),
            activation_bytes=cost.activation_bytes * 0.6,
            efficiency=min(1.0, cost.efficiency * 1.2),
        )

    def apply(self, model: Model, work: Work) -> Model:
        """The model as StableHLO, with its weights beside it."""
        torch_program(model)
        if model.settings.inference_mode:
            raise NotApplicable("XLA keeps no autograd record, so inference mode would change nothing")
        lineage = (*model.lineage, str(self))
        folder = conversion_folder(work, "xla", model.replace(lineage=lineage))
        made = stablehlo.to_xla(model, folder).replace(lineage=lineage)
        sizes = json.dumps(sorted({1, *_sizes(model, work)}))
        return made.replace(settings=made.settings.with_options(batches=sizes)) if model.signature.has_batch else made


def _sizes(model: Model, work: Work) -> list[int]:
    """The numbers of samples of the calls that come most often."""
    calls = list(samples.read(work.example))[:MOST_COMPILATIONS] if work.example is not None else []
    axes = [spec.batch_axis for spec in model.signature.inputs]
    return [next(leaf.shape[axis] for leaf, axis in zip(call, axes, strict=True) if axis is not None) for call in calls]
