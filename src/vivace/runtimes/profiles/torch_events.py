"""PyTorch's own profiler over a program that PyTorch runs: an exported graph, as it is or compiled by Inductor.

Source: torch.profiler; for Inductor, its setting cpp.enable_kernel_profile, with which each C++ kernel says its name.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from vivace.core.compute import OperatorTime
from vivace.core.program import Model
from vivace.runtimes import eager, inductor
from vivace.runtimes.fusions.inductor_kernels import Kernel, kernels_of, layers_of, recorded
from vivace.runtimes.graphs.counts import NodeWork, work_of
from vivace.runtimes.graphs.layers import each_name
from vivace.runtimes.profiles.profiled import Profiled, Shapes, medians
from vivace.runtimes.program import Program

FEWEST, MOST_OPERATORS = 3, 4000
"""Calls at the least, and operators at the most, that are recorded: reading one back with all that it calls takes about
half a millisecond."""
VARYING = "calls ran different operators, so they are told by kind"
UNNAMED = "Inductor does not say which layers its kernels work for"
_KERNEL = re.compile(r"^graph_\d+_")
_Timed = tuple[str, float]
"""An operator's name, and its seconds in one call."""


def open_graph(model: Model, shapes: Shapes, captured: Model) -> Profiled:
    """A graph that runs operator by operator: each one is a node, whose layer and work are known."""
    return _Graph(eager.load(model), model)


def open_inductor(model: Model, shapes: Shapes, captured: Model) -> Profiled:
    """A graph compiled once more, by an Inductor that has its kernels tell their time.

    For these shapes alone where they are the example's: the general code would not run.
    """
    settings = model.settings.with_options(**{"cpp.enable_kernel_profile": True})
    model = model.replace(settings=settings)
    if shapes == tuple(tuple(leaf.shape) for leaf in inductor.example_of(model)):
        specs = zip(model.signature.inputs, shapes, strict=True)
        fixed = tuple(dataclasses.replace(spec, shape=shape) for spec, shape in specs)
        model = model.replace(signature=dataclasses.replace(model.signature, inputs=fixed))
    with recorded(model.program.graph) as compilations:
        program = inductor.load(model)
    return _Compiled(program, model, compilations[-1] if compilations else [])


class _Events(Profiled):
    """A program whose operators are events of PyTorch's profiler."""

    def __init__(self, program: Program, model: Model) -> None:
        super().__init__(program)
        self.most_calls = min(self.most_calls, max(FEWEST, MOST_OPERATORS // len(model.program.graph.nodes)))
        self._model = model
        self._calls = 0
        self._profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """One call, counted."""
        self._calls += 1
        return super().__call__(*args, **kwargs)

    def start(self) -> None:
        """Have the profiler record from here."""
        self._calls = 0
        self._profiler.start()

    def stop(self) -> tuple[tuple[OperatorTime, ...], str]:
        """What the profiler recorded; by kind of operator where calls ran different ones."""
        self._profiler.stop()
        ran = [(_KERNEL.sub("", event.name), event.time_range.elapsed_us() * 1e-6) for event in self._ran()]
        calls = alike(ran, self._calls)
        if calls is None:
            return tuple(OperatorTime(name, (), seconds / self._calls) for name, seconds in _sums(ran).items()), VARYING
        seconds = medians([dict(enumerate(taken for _, taken in call)) for call in calls])
        return self._told([(name, seconds[place]) for place, (name, _) in enumerate(calls[0])])

    def _ran(self) -> Iterator[Any]:
        """The outermost events that are operators, in the order of running."""
        events: Iterable[Any] = self._profiler.events()  # type: ignore[no-untyped-call]
        outermost = (event for event in events if event.cpu_parent is None)
        return _opened(sorted(outermost, key=lambda event: event.time_range.start))

    def _told(self, ran: Sequence[_Timed]) -> tuple[tuple[OperatorTime, ...], str]:
        return tuple(OperatorTime(name, (), seconds) for name, seconds in ran), ""


class _Graph(_Events):
    """An exported graph: the operators of a call are its nodes, in order."""

    def __init__(self, program: Program, model: Model) -> None:
        super().__init__(program, model)
        self._call: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """One call, remembered, for its work to be counted."""
        self._call = args, kwargs
        return super().__call__(*args, **kwargs)

    def _told(self, ran: Sequence[_Timed]) -> tuple[tuple[OperatorTime, ...], str]:
        nodes = nodes_of([name for name, _ in ran], self._model.program.graph.nodes)
        if nodes is None:
            plain, _ = super()._told(ran)
            return plain, "the operators that ran could not be told apart in the graph"
        work, note = self._work()
        timed = zip(nodes, each_name(nodes), ran, strict=True)
        return tuple(_timed(node, layer, seconds, work.get(node.name)) for node, layer, (_, seconds) in timed), note

    def _work(self) -> tuple[Mapping[str, NodeWork], str]:
        """The work of each node, counted after all timing, for that runs the graph in other ways."""
        args, kwargs = self._call
        try:
            return work_of(self._model, self.program.flatten(*args, **kwargs)), ""
        except Exception as error:  # operators of others may not run under a counter, each in its way  # noqa: BLE001
            return {}, f"its work could not be counted: {type(error).__name__}: {str(error)[:200]}"


class _Compiled(_Events):
    """What Inductor made of a graph: kernels of its own between operators of libraries, in the order of running."""

    def __init__(self, program: Program, model: Model, kernels: Sequence[Kernel]) -> None:
        super().__init__(program, model)
        self._kernels = kernels

    def _told(self, ran: Sequence[_Timed]) -> tuple[tuple[OperatorTime, ...], str]:
        """A kernel that only copies, and an operator that is none of the kernels, are of no layer."""
        graph = self._model.program.graph
        found = kernels_of([name for name, _ in ran], self._kernels)
        layers = [() if kernel is None else layers_of(kernel.nodes, graph) for kernel in found]
        told = tuple(OperatorTime(name, own, seconds) for (name, seconds), own in zip(ran, layers, strict=True))
        return told, "" if any(layers) else UNNAMED


def alike(ran: Sequence[_Timed], calls: int) -> list[Sequence[_Timed]] | None:
    """What ran, call by call; None where calls did not run the same operators in the same order.

    >>> alike([("aten::mm", 2.0), ("aten::relu", 1.0), ("aten::mm", 3.0), ("aten::relu", 1.0)], 2)
    [[('aten::mm', 2.0), ('aten::relu', 1.0)], [('aten::mm', 3.0), ('aten::relu', 1.0)]]
    """
    size, rest = divmod(len(ran), calls)
    parts = [ran[start : start + size] for start in range(0, len(ran), size)] if size else []
    names = {tuple(name for name, _ in part) for part in parts}
    return parts if len(names) == 1 and not rest else None


def nodes_of(names: Iterable[str], nodes: Iterable[fx.Node]) -> list[fx.Node] | None:
    """The node that each operator is, by name and order; nodes that run nothing are passed over. None where one is not
    there."""
    left = iter(nodes)
    found = [next((node for node in left if _name_of(node) == name), None) for name in names]
    return [node for node in found if node is not None] if None not in found else None


def _timed(node: fx.Node, layer: str, seconds: float, work: NodeWork | None) -> OperatorTime:
    counted = (None, None) if work is None else (float(work.flops), float(work.moved_bytes))
    return OperatorTime(node.target._opname, (layer,), seconds, *counted)  # type: ignore[union-attr]


def _name_of(node: fx.Node) -> str:
    schema = getattr(node.target, "_schema", None)
    return schema.name if schema is not None else ""


def _opened(events: Iterable[Any]) -> Iterator[Any]:
    """Events, with what ran inside of those that only lead there: their names are sentences, not operators'."""
    for event in events:
        if " " not in event.name:
            yield event
        else:
            yield from _opened(sorted(event.cpu_children, key=lambda inner: inner.time_range.start))


def _sums(ran: Iterable[_Timed]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for name, seconds in ran:
        sums[name] = sums.get(name, 0.0) + seconds
    return sums
