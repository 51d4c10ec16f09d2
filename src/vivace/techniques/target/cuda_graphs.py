"""Records the kernels of one call on a CUDA device and replays them with a single launch."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from vivace.core.cost import Cost
from vivace.core.errors import NotApplicable
from vivace.core.facts import Fact
from vivace.core.program import Form, Model
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.work import Work

FORMS = (Form.TORCH, Form.INDUCTOR)


@dataclasses.dataclass(frozen=True)
class CudaGraphs(Technique):
    """All kernels of a call started at once, as a CUDA graph: inputs are copied in, answers out.

    Takes the launches out of small models, where they outweigh the work. Kernels that Inductor made are recorded like
    PyTorch's own. The first call of each shape records it, of eight shapes at most, each with memory of its own; calls
    of others are launched kernel by kernel as before. Raises NotApplicable when the program is not on a CUDA device,
    and at its first call when that waits for the device in between.

    Source: https://docs.nvidia.com/cuda/cuda-c-programming-guide/#cuda-graphs;
    https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs, read in November 2026.

    >>> CudaGraphs().rewrite(Cost(1e9, 4e6, 4e6, 100)).operator_seconds
    1e-06
    """

    stage = Stage.TARGET  # after what compiles the program, and after what moves it there
    family = Family.SYSTEM
    effect = Effect.ROUNDED  # libraries may choose other kernels where they are recorded
    needs = frozenset({Fact.TORCH_GRAPH, Fact.CUDA_DEVICE, Fact.ON_CUDA})
    source = "https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs"

    def idle_beside(self, others: Sequence[Technique]) -> str | None:
        """It computes in inference mode, so that a plan that asks for this too repeats one that does not."""
        if any(other.name() == "inference-mode" for other in others):
            return f"{self} computes in inference mode already, so inference-mode adds nothing"
        return None

    def rewrite(self, cost: Cost) -> Cost:
        """No launch of their own for kernels; copies in and out at each call."""
        return cost.replace(
            operator_seconds=min(cost.operator_seconds, 1e-6), call_seconds=max(cost.call_seconds, 3e-5)
        )

    def apply(self, model: Model, work: Work) -> Model:
        """The model, whose calls are to be recorded where it is run."""
        if model.form not in FORMS or model.settings.device == "cpu":
            raise NotApplicable(f"a program of form {model.form.value} on {model.settings.device} starts no kernels")
        if model.settings.cuda_graph:
            raise NotApplicable("its calls are recorded already")
        return model.replace(settings=model.settings.replace(cuda_graph=True, inference_mode=True))
