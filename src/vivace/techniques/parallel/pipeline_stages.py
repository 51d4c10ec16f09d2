"""Cuts a graph into stages that work on different parts of a batch at the same time: a pipeline for inference."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from vivace.core.cost import Cost
from vivace.core.errors import NotApplicable, UsageError
from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.program import Model
from vivace.core.signature import Signature
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.work import Work
from vivace.data import samples
from vivace.runtimes.instances import size_of, split
from vivace.runtimes.lanes.run import DEVICES, EACH, MOST, MOST_PARTS, OPTION, PARTS, text_of
from vivace.runtimes.lanes.schedule import HANDOVER_SECONDS, staged
from vivace.techniques.graph import torch_program
from vivace.techniques.parallel.operator_times import seconds_of, writing

LEAST_FLOPS = 1e6
"""Below this a call is over before another thread has been woken."""
WORTH = 1.05
"""The least gain, by the operators' times, for which a graph is cut."""


@dataclasses.dataclass(frozen=True)
class PipelineStages(Technique):
    """`stages` threads, each with a part of the graph's operators and its share of the threads; on CUDA each has a card
    of its own, and its weights lie there alone. A batch goes through in `parts`, one behind the other.

    The graph is cut, in its own order, where the longest stage takes least by the measured times of its operators. A
    call takes (parts + stages - 1) times that. Where this is not at least 5% less than without, nothing is changed; of
    cards it is, for a network that one card has no room for. Raises NotApplicable then, and for calls that cannot be
    split by samples.

    Source: Huang et al., GPipe, NeurIPS 2019 (arXiv:1811.06965), section 2.

    >>> str(PipelineStages(stages=2, parts=4))
    'pipeline-stages(stages=2, parts=4)'
    """

    stages: int = 2
    parts: int = 4

    stage = Stage.PARALLEL
    order = 6
    family = Family.SYSTEM
    effect = Effect.ROUNDED
    needs = frozenset({Fact.TORCH_GRAPH, Fact.UNCOMPILED})
    breaks = frozenset({Fact.UNCOMPILED, Fact.ONNX_READY, Fact.OPENVINO_READY})
    source = "Huang et al., NeurIPS 2019, arXiv:1811.06965"

    def __post_init__(self) -> None:
        for name, most in (("stages", MOST), ("parts", MOST_PARTS)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 2 <= value <= most:
                raise UsageError(f"pipeline-stages received {name}={value!r}; allowed are 2 to {most}")

    @classmethod
    def variants(cls, work: Work, machine: Machine) -> Iterator[Technique]:
        """A stage a core, or a card; twice and four times as many parts, where the example has a sample for each."""
        places = len(machine.gpus) if work.cost.device != "cpu" else machine.cores_allowed
        if work.example is None or work.cost.flops < LEAST_FLOPS or not _splits(work.signature):
            return
        size = size_of(samples.read(work.example)[0], [spec.batch_axis for spec in work.signature.inputs])
        stages = min(places, MOST)
        for parts in (2 * stages, 4 * stages):
            if stages >= 2 and parts <= min(size, MOST_PARTS):
                yield cls(stages, parts)

    def rewrite(self, cost: Cost) -> Cost:
        """The same work, with stages that wait while a pipeline fills and empties."""
        idle = (self.parts + self.stages - 1) / self.parts
        return cost.replace(efficiency=cost.efficiency / idle, call_seconds=cost.call_seconds + 5e-5 * self.parts)

    def apply(self, model: Model, work: Work) -> Model:
        """The model with a stage for each of its operators."""
        program = torch_program(model)
        if work.example is None or not _splits(model.signature):
            raise NotApplicable("its calls cannot be split by samples, so that no part could follow another")
        wrote = writing(program)
        if wrote is not None:
            raise NotApplicable(f"{wrote} writes into its tensor, which another stage may read")
        leaves = samples.read(work.example)[0]
        axes = [spec.batch_axis for spec in model.signature.inputs]
        size = size_of(leaves, axes)
        if size < self.parts:
            raise NotApplicable(f"the example has {size} samples, which make no {self.parts} parts")
        total = model.settings.threads or work.cost.threads
        share = max(1, total // self.stages)
        part = split(leaves, axes, size, self.parts)[0]
        plan = staged(seconds_of(program, part, share, model.settings.device), self.stages)
        settings = model.settings.with_options(**{OPTION: text_of(plan.lanes)}).with_options(**{PARTS: self.parts})
        if model.settings.device != "cpu":
            settings = settings.with_options(**{DEVICES: EACH})
        else:
            self._check(sum(seconds_of(program, leaves, total)), plan.seconds, plan.lanes)
            settings = settings.replace(threads=share)
        return model.replace(settings=settings, lineage=(*model.lineage, str(self)))

    def _check(self, alone: float, longest: float, lanes: Sequence[int]) -> None:
        """Raise NotApplicable where a pipeline does not promise to be faster."""
        promised = (self.parts + self.stages - 1) * (longest + HANDOVER_SECONDS)
        if len(set(lanes)) < 2 or alone < WORTH * promised:
            raise NotApplicable(
                f"its operators were measured to take {alone * 1e3:.3g} ms one after the other, and would take "
                f"{promised * 1e3:.3g} ms in {self.stages} stages"
            )


def _splits(signature: Signature) -> bool:
    return signature.has_batch and None not in [spec.batch_axis for spec in signature.outputs]
