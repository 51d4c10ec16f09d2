"""Runs independent branches of a graph at the same time, where their measured times say that it pays."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from vivace.core.cost import Cost
from vivace.core.errors import NotApplicable, UsageError
from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.program import Model
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.work import Work
from vivace.data import samples
from vivace.runtimes import eager
from vivace.runtimes.lanes.run import MOST, OPTION, needs_of, operators_of, text_of
from vivace.runtimes.lanes.schedule import scheduled
from vivace.techniques.graph import torch_program
from vivace.techniques.parallel.operator_times import seconds_of, writing

WORTH = 1.05
"""The least gain, by the operators' times, for which branches are run apart."""
LEAST_FLOPS = 1e6
"""Below this a call is over before another thread has been woken."""


@dataclasses.dataclass(frozen=True)
class ParallelBranches(Technique):
    """`lanes` threads that each run a part of the graph's operators and wait only for what they need of another.

    Every operator is timed with all threads and with a lane's share of them. They are spread so that a call ends as
    early as possible; where that is not at least 5% earlier than one after the other, nothing is changed. Raises
    NotApplicable then, for graphs that write into their tensors, and without an example call to time.

    Source: Wang et al., Exploiting Parallelism Opportunities with Deep Learning Frameworks, ACM TACO 2020
    (arXiv:1908.04705), section 4 (inter-operator parallelism); list scheduling: Graham, 1969.

    >>> str(ParallelBranches(3))
    'parallel-branches(lanes=3)'
    """

    lanes: int = 2

    stage = Stage.PARALLEL
    order = 5
    family = Family.ALGORITHM
    effect = Effect.ROUNDED
    needs = frozenset({Fact.TORCH_GRAPH, Fact.UNCOMPILED, Fact.ON_CPU})
    breaks = frozenset({Fact.UNCOMPILED, Fact.ONNX_READY, Fact.OPENVINO_READY})
    source = "Wang et al., ACM TACO 2020, arXiv:1908.04705; Graham, SIAM J. Appl. Math. 17, 1969"

    def __post_init__(self) -> None:
        if isinstance(self.lanes, bool) or not isinstance(self.lanes, int) or not 2 <= self.lanes <= MOST:
            raise UsageError(f"parallel-branches received lanes={self.lanes!r}; allowed are 2 to {MOST}")

    @classmethod
    def variants(cls, work: Work, machine: Machine) -> Iterator[Technique]:
        """A lane a core, and two."""
        if work.cost.flops >= LEAST_FLOPS:
            for lanes in dict.fromkeys((min(machine.cores_allowed, MOST), 2)):
                if 2 <= lanes <= machine.cores_allowed:
                    yield cls(lanes)

    def rewrite(self, cost: Cost) -> Cost:
        """The same work with a little less waiting; how much, only timing tells."""
        return cost.replace(call_seconds=cost.call_seconds + 5e-5)

    def apply(self, model: Model, work: Work) -> Model:
        """The model with a lane for each of its operators."""
        program = torch_program(model)
        if work.example is None:
            raise NotApplicable("there is no example call to time its operators with")
        nodes = operators_of(eager.copied_graph(program))
        wrote = writing(program)
        if wrote is not None:
            raise NotApplicable(f"{wrote} writes into its tensor, which another branch may read")
        leaves = samples.read(work.example)[0]
        total = model.settings.threads or work.cost.threads
        share = max(1, total // self.lanes)
        alone = sum(seconds_of(program, leaves, total))
        plan = scheduled(seconds_of(program, leaves, share), needs_of(nodes), self.lanes)
        if len(set(plan.lanes)) < 2 or alone < WORTH * plan.seconds:
            raise NotApplicable(
                f"its operators were measured to take {alone * 1e3:.3g} ms one after the other, and would take "
                f"{plan.seconds * 1e3:.3g} ms on {self.lanes} lanes"
            )
        settings = model.settings.replace(threads=share).with_options(**{OPTION: text_of(plan.lanes)})
        return model.replace(settings=settings, lineage=(*model.lineage, str(self)))
