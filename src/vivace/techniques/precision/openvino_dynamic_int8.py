"""An OpenVINO model whose matrix products are in 8-bit integers, activations scaled as they come."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch

from vivace.core.cost import Cost
from vivace.core.errors import NotApplicable, UsageError
from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.program import Model
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.work import Work
from vivace.data import samples
from vivace.runtimes import openvino_session
from vivace.runtimes.openvino_graph import import_openvino
from vivace.techniques.precision.openvino_weight_only import OpenvinoWeightOnly

GROUPS = tuple(size for size in openvino_session.GROUPS if size > 0)


@dataclasses.dataclass(frozen=True)
class OpenvinoDynamicInt8(Technique):
    """Matrix products of int8 weights, one scale an output channel, and of activations in int8, one scale for each
    `group_size` inputs of a row, found in every call; needs no data.

    Weights are compressed by NNCF as in `openvino-weight-only`. Larger groups are faster and less exact; OpenVINO's own
    default is 32. Convolutions have int8 weights and products in float.
    Layers that the user named stay in float. Raises NotApplicable where the plug-in has no such kernels, or none for
    these layers: its answers are then those of compressed weights alone. Raises MissingExtra without the packages, and
    UsageError for another group.

    Source: https://docs.openvino.ai/2026/openvino-workflow-generative/inference-with-optimum-intel.html, dynamic
    quantization, and the property DYNAMIC_QUANTIZATION_GROUP_SIZE of the CPU plug-in, read in November 2026.

    >>> str(OpenvinoDynamicInt8(group_size=32))
    'openvino-dynamic-int8(group_size=32)'
    """

    group_size: int = 128

    stage = Stage.PRECISION
    family = Family.ALGORITHM
    effect = Effect.CHANGED
    needs = OpenvinoWeightOnly.needs | {Fact.INT8_INSTRUCTIONS, Fact.HAS_LINEAR}
    breaks = OpenvinoWeightOnly.breaks
    source = "https://docs.openvino.ai/2026, the CPU plug-in's property DYNAMIC_QUANTIZATION_GROUP_SIZE"
    build_seconds = OpenvinoWeightOnly.build_seconds
    packages = ("openvino", "nncf")
    extra = "openvino"

    def __post_init__(self) -> None:
        if self.group_size not in GROUPS:
            allowed = ", ".join(map(str, GROUPS))
            raise UsageError(f"openvino-dynamic-int8 received group_size={self.group_size!r}; allowed are {allowed}")

    @classmethod
    def variants(cls, work: Work, machine: Machine) -> Iterator[Technique]:
        """Groups of 128, and of 64 for layers that have no more inputs; `gentler` makes them smaller."""
        yield cls()
        yield cls(group_size=64)

    def gentler(self, work: Work) -> Iterator[Technique]:
        """Smaller groups."""
        return (dataclasses.replace(self, group_size=size) for size in reversed(GROUPS) if size < self.group_size)

    def rewrite(self, cost: Cost) -> Cost:
        """A quarter of the weights, and int8 products, but where most of the work is in convolutions or recurrent
        cells."""
        lighter = OpenvinoWeightOnly().rewrite(cost)
        if cost.mostly_convolutions or cost.mostly_recurrent:
            return lighter
        return lighter.replace(precision="int8", efficiency=cost.efficiency * 0.5)

    def apply(self, model: Model, work: Work) -> Model:
        """The model as an OpenVINO graph with compressed weights, and the group for its activations."""
        compressed = OpenvinoWeightOnly().apply(model, work)
        made = _with_group(compressed, self.group_size)
        if not _differ(made, _with_group(compressed, 0), work):
            raise NotApplicable("OpenVINO does no product of this model with activations in int8 here")
        return made.replace(lineage=(*model.lineage, str(self)))


def _with_group(model: Model, size: int) -> Model:
    return model.replace(settings=model.settings.with_options(**{openvino_session.ACTIVATION_GROUP: size}))


def _differ(one: Model, other: Model, work: Work) -> bool:
    """Whether two settings of a model answer the example call differently; True where there is no example."""
    if work.example is None:
        return True
    leaves = next(iter(samples.read(work.example)))
    answers = []
    for model in (one, other):
        request = openvino_session.compiled(import_openvino(), model, None).create_infer_request()
        answers.append(openvino_session.runner(request, model)(leaves))
    return not all(torch.equal(first, second) for first, second in zip(*answers, strict=True))
