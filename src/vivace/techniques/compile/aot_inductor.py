"""Inductor ahead of time: a package of native code that loads in no time and calls without Python's overhead."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from vivace.core.cost import Cost
from vivace.core.errors import NotApplicable
from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.program import Model
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.work import Work
from vivace.runtimes import aot, inductor
from vivace.techniques.graph import torch_program


@dataclasses.dataclass(frozen=True)
class AotInductor(Technique):
    """The graph compiled to a shared library while the plan is built; loading it runs native code, so it needs trust.

    `fuse=False` asks for kernels that are not fused, to show what fusing gains; no search tries it.
    With `freeze`, weights become constants that are folded and packed for the kernels. The code fits processors with
    the instructions of this one. Raises NotApplicable when the program is no PyTorch graph any more, or its settings
    hold inference mode, which native code has no use for; compiler errors come as NotApplicable too.

    Source: https://docs.pytorch.org/docs/stable/torch.compiler_aot_inductor.html, read in November 2026.

    >>> str(AotInductor(freeze=True))
    'aot-inductor(freeze=True)'
    """

    freeze: bool = False
    fuse: bool = True

    stage = Stage.COMPILE
    family = Family.ALGORITHM
    effect = Effect.ROUNDED
    needs = frozenset({Fact.TORCH_GRAPH, Fact.UNCOMPILED, Fact.NATIVE_ALLOWED, Fact.CXX_COMPILER, Fact.ON_CPU})
    breaks = frozenset({Fact.TORCH_GRAPH, Fact.UNCOMPILED, Fact.ONNX_READY, Fact.OPENVINO_READY})
    source = "https://docs.pytorch.org/docs/stable/torch.compiler_aot_inductor.html"

    @classmethod
    def variants(cls, work: Work, machine: Machine) -> Iterator[Technique]:
        """With frozen weights first."""
        yield cls(freeze=True)
        yield cls(freeze=False)

    def unfused(self) -> Technique | None:
        """Each operator a kernel of its own, but for chains of elementwise ones that lowering writes into one, and
        batch normalizations that freezing folds into weights."""
        return dataclasses.replace(self, fuse=False) if self.fuse else None

    def rewrite(self, cost: Cost) -> Cost:
        """As Inductor, without Python between call and kernels."""
        return cost.replace(
            operators=max(1, cost.operators // 2),
            operator_seconds=min(cost.operator_seconds, 1e-6),
            call_seconds=max(cost.call_seconds, 1e-5),
            activation_bytes=cost.activation_bytes * 0.6,
            efficiency=min(1.0, cost.efficiency * (1.4 if self.freeze else 1.1)),
        )

    def apply(self, model: Model, work: Work) -> Model:
        """The model as a package of native code."""
        torch_program(model)
        if model.settings.inference_mode:
            raise NotApplicable("native code keeps no autograd record, so inference mode would change nothing")
        settings = model.settings.with_options(freezing=True) if self.freeze else model.settings
        settings = settings if self.fuse else settings.with_options(**inductor.UNFUSED)
        lineage = (*model.lineage, str(self))
        folder = work.folder / "native" / "-".join(part.replace("/", "_") for part in lineage)
        return aot.to_aot(model.replace(settings=settings), folder).replace(lineage=lineage)
