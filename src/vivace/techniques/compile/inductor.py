"""PyTorch's own compiler: fuses the graph's operators into C++ (or Triton) kernels when the program is loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from vivace.core.cost import Cost
from vivace.core.errors import NotApplicable
from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.program import Form, Model
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.work import Work
from vivace.runtimes import inductor
from vivace.techniques.graph import torch_program


@dataclasses.dataclass(frozen=True)
class Inductor(Technique):
    """The graph compiled by Inductor each time that the program is loaded (seconds to half a minute).

    `fuse=False` asks for kernels that are not fused, to show what fusing gains; no search tries it.
    With `freeze`, weights become constants: they are folded and packed for the kernels, and calls run in inference
    mode; memory may double while loading. Raises NotApplicable when the program is no PyTorch graph any more, and at
    loading when there is no C++ compiler.

    Source: Ansel et al., PyTorch 2: Faster Machine Learning Through Dynamic Python Bytecode Transformation and Graph
    Compilation, ASPLOS 2024 (doi:10.1145/3620665.3640366).

    >>> str(Inductor(freeze=True))
    'inductor(freeze=True)'
    """

    freeze: bool = False
    fuse: bool = True

    stage = Stage.COMPILE
    family = Family.ALGORITHM
    effect = Effect.ROUNDED
    needs = frozenset({Fact.TORCH_GRAPH, Fact.UNCOMPILED, Fact.CXX_COMPILER})
    breaks = frozenset({Fact.UNCOMPILED, Fact.ONNX_READY, Fact.OPENVINO_READY})
    build_seconds = 25.0
    source = "Ansel et al., ASPLOS 2024, doi:10.1145/3620665.3640366"

    @classmethod
    def variants(cls, work: Work, machine: Machine) -> Iterator[Technique]:
        """With frozen weights first: it is faster nearly everywhere."""
        yield cls(freeze=True)
        yield cls(freeze=False)

    def unfused(self) -> Technique | None:
        """Each operator a kernel of its own, but for chains of elementwise ones that lowering writes into one, and
        batch normalizations that freezing folds into weights."""
        return dataclasses.replace(self, fuse=False) if self.fuse else None

    def rewrite(self, cost: Cost) -> Cost:
        """About half the operators are left, with little between them; frozen weights are packed for the kernels."""
        return cost.replace(
            operators=max(1, cost.operators // 2),
            operator_seconds=min(cost.operator_seconds, 1.5e-6),
            call_seconds=max(cost.call_seconds, 2e-5),
            activation_bytes=cost.activation_bytes * 0.6,
            efficiency=min(1.0, cost.efficiency * (1.4 if self.freeze else 1.1)),
        )

    def apply(self, model: Model, work: Work) -> Model:
        """The model, to be compiled when it is loaded."""
        torch_program(model)
        if self.freeze and model.settings.inference_mode:
            raise NotApplicable("frozen weights imply inference mode already, so this plan repeats one without it")
        settings = model.settings
        if self.freeze:
            settings = settings.with_options(freezing=True).replace(inference_mode=True)
        if not self.fuse:
            settings = settings.with_options(**inductor.UNFUSED)
        return model.replace(form=Form.INDUCTOR, settings=settings, lineage=(*model.lineage, str(self)))
