"""Records the kernels of one call on a CUDA device and replays them with a single launch."""

from __future__ import annotations

import dataclasses

from vivace.core.cost import Cost
from vivace.core.facts import Fact
from vivace.core.program import Form, Model
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.work import Work
from vivace.techniques.graph import torch_program


@dataclasses.dataclass(frozen=True)
class CudaGraphs(Technique):
    """The graph compiled by Inductor, each batch size recorded once as a CUDA graph and replayed from then on.

    Takes the launches out of small models, where they outweigh the work. Each recorded batch size holds its own memory.
    Raises NotApplicable when the program is no PyTorch graph any more.

    Source: https://docs.nvidia.com/cuda/cuda-c-programming-guide/#cuda-graphs;
    https://docs.pytorch.org/docs/stable/torch.compiler_cudagraph_trees.html, read in November 2026.

    >>> CudaGraphs().rewrite(Cost(1e9, 4e6, 4e6, 100)).operator_seconds
    5e-07
    """

    stage = Stage.COMPILE
    family = Family.SYSTEM
    effect = Effect.ROUNDED
    needs = frozenset({Fact.TORCH_GRAPH, Fact.UNCOMPILED, Fact.CUDA_DEVICE, Fact.CXX_COMPILER})
    breaks = frozenset({Fact.UNCOMPILED, Fact.ONNX_READY, Fact.OPENVINO_READY, Fact.RUNNABLE, Fact.ON_CPU})
    source = "https://docs.pytorch.org/docs/stable/torch.compiler_cudagraph_trees.html"

    def rewrite(self, cost: Cost) -> Cost:
        """Fused kernels, replayed without a launch of their own each."""
        return cost.replace(
            operators=max(1, cost.operators // 2),
            operator_seconds=min(cost.operator_seconds, 5e-7),
            call_seconds=max(cost.call_seconds, 2e-5),
            activation_bytes=cost.activation_bytes * 0.6,
            efficiency=min(1.0, cost.efficiency * 1.1),
        )

    def apply(self, model: Model, work: Work) -> Model:
        """The model, to be compiled with CUDA graphs when it is loaded."""
        torch_program(model)
        settings = model.settings.with_options(**{"triton.cudagraphs": True}).replace(inference_mode=True)
        return model.replace(form=Form.INDUCTOR, settings=settings, lineage=(*model.lineage, str(self)))
