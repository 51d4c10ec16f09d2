"""A written program with a clock in it: how long its first thread is at each statement, by the graph's operators."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from torch import fx

from vivace.core.compute import OperatorTime
from vivace.core.errors import NotApplicable
from vivace.core.program import Model
from vivace.runtimes.graphs.layers import each_name
from vivace.runtimes.inductor import example_of
from vivace.runtimes.native.session import Timed, entered, timed
from vivace.runtimes.profiles.profiled import Profiled, Shapes, medians

FIRST_THREAD = "times are the first thread's, without what it waits for others; what reads an activation may compute it"
HANDED_OVER = "answers handed over"


def open_native(model: Model, shapes: Shapes, captured: Model) -> Profiled:
    """The program written out once more, with a clock. Raises what loading one raises; NotApplicable for calls of
    other shapes than the example's, which are answered in parts or operator by operator."""
    example = [leaf.contiguous() for leaf in example_of(model)]
    if shapes != tuple(tuple(leaf.shape) for leaf in example):
        raise NotApplicable("its calls are of other shapes than its code is for, which is not profiled")
    return _Clocked(timed(model, example), model)


class _Clocked(Profiled):
    """Code whose statements' seconds are read after every call."""

    def __init__(self, code: Timed, model: Model) -> None:
        super().__init__(entered(model, code.run))
        self._code = code
        self._nodes = {node.name: node for node in model.program.graph.nodes}
        self._calls: list[list[float]] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """One call, whose times are kept."""
        found = super().__call__(*args, **kwargs)
        self._calls.append(list(self._code.told))
        return found

    def start(self) -> None:
        """Forget the calls so far."""
        self._calls.clear()

    def stop(self) -> tuple[tuple[OperatorTime, ...], str]:
        """Statements one after the other that do the work of the same operators are told as one."""
        owners = self._code.owners
        parts = [list(part) for _, part in itertools.groupby(range(len(owners)), owners.__getitem__)]
        calls = [{place: sum(call[one] for one in part) for place, part in enumerate(parts)} for call in self._calls]
        seconds = medians(calls)
        told = (self._told(owners[part[0]], seconds[place]) for place, part in enumerate(parts))
        return tuple(told), FIRST_THREAD

    def _told(self, owners: Sequence[str], seconds: float) -> OperatorTime:
        nodes: list[fx.Node] = [self._nodes[name] for name in owners if name in self._nodes]
        kinds = "+".join(dict.fromkeys(getattr(node.target, "_opname", node.name) for node in nodes))
        return OperatorTime(kinds or HANDED_OVER, tuple(dict.fromkeys(each_name(nodes))), seconds)
