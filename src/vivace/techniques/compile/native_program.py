"""The whole network as one C++ program of its own, in the precision of its graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from vivace.core.cost import Cost
from vivace.core.facts import Fact
from vivace.core.program import Model
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.work import Work
from vivace.techniques.compile.written import NEEDS, SOURCE, nothing_to_do, rewritten, to_be_written


@dataclasses.dataclass(frozen=True)
class NativeProgram(Technique):
    """The graph written out as one C++ program for the example's shapes, compiled when it is loaded (a second or
    less): weights are packed once, products stay in registers, what follows them is done before they are stored,
    images lie channels last, and threads wait for each other by spinning, only where one reads what another wrote.

    It is for networks whose calls take microseconds to some milliseconds, in which calling kernels costs as much as
    they do. Calls of other shapes are answered operator by operator, as the original answers. Raises NotApplicable at
    loading with the name of an operator that it has no C for, and without a C++ compiler.

    Source: Goto and van de Geijn, Anatomy of High-Performance Matrix Multiplication, ACM TOMS 34(3), 2008; windows are
    read in place, as by Dukhan, The Indirect Convolution Algorithm, 2019 (arXiv:1907.02129).

    >>> NativeProgram.name()
    'native-program'
    """

    stage = Stage.COMPILE
    family = Family.ALGORITHM
    effect = Effect.ROUNDED
    needs = NEEDS
    gives = frozenset({Fact.WRITTEN})
    breaks = frozenset({Fact.UNCOMPILED, Fact.TORCH_GRAPH, Fact.ONNX_READY, Fact.OPENVINO_READY})
    build_seconds = 2.0
    source = SOURCE

    def idle_beside(self, others: Sequence[Technique]) -> str | None:
        """Why a plan with these repeats one without: it chooses how tensors lie, and folds normalizations."""
        return nothing_to_do(others)

    def rewrite(self, cost: Cost) -> Cost:
        """One call of one operator; most of what lay between operators stays in registers or near caches."""
        return rewritten(cost)

    def apply(self, model: Model, work: Work) -> Model:
        """The model, to be written out and compiled when it is loaded."""
        return to_be_written(model, str(self))
