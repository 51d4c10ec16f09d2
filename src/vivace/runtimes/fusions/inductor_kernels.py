"""What Inductor fused: each kernel that it makes, with the nodes of the graph that it was given.

Inductor rewrites its graph many times. Each node of the given graph is marked by its name; PyTorch copies such marks to
what it decomposes a node into, and where Inductor's patterns put one node in the place of several, the new one gets the
marks of all. Its own record of provenance then tells the nodes of each kernel.

Source: torch._inductor.debug (provenance_tracking_level) and torch._inductor.pattern_matcher, as of PyTorch 2.13.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import fx

from vivace.core.layer import Fused
from vivace.runtimes.graphs.counts import VIEWS
from vivace.runtimes.graphs.layers import names_of

_MARK = "vivace_nodes"
_CUSTOM = "custom"
"""The part of a node's notes that PyTorch leaves to others, and copies along."""
_NOTE, _ACCOUNT = "set_kernel_post_grad_provenance_tracing", "dump_inductor_provenance_info"
"""Where Inductor notes what a kernel was made of, and where it gives account of all kernels of a graph."""
_DECORATION = re.compile(r"^(extern_kernels|torch\.ops)\.|\.(default|out)$")
_MOVES = VIEWS | {"getitem"}


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One kernel in the order of running. `nodes` are those of the given graph whose work it does, each told at one
    kernel, though several may compute it anew."""

    name: str
    nodes: frozenset[str]


@contextlib.contextmanager
def recorded(graph: fx.Graph) -> Iterator[list[list[Kernel]]]:
    """While it is open, each compilation of this graph, or of a copy of it, appends its kernels to the list.

    An Inductor that keeps no such record leaves the list empty.
    """
    compilations: list[list[Kernel]] = []
    with contextlib.ExitStack() as stack:
        try:
            from torch._inductor import config, debug, pattern_matcher
        except ImportError:
            yield compilations
            return
        stack.enter_context(config.patch({"trace.provenance_tracking_level": 1, "force_disable_caches": True}))
        stack.enter_context(_marked(graph))
        for name in ("LoweringPatternEntry", "GraphPatternEntry", "ReplacementPatternEntry"):
            stack.enter_context(_replaced(getattr(pattern_matcher, name, None), "apply", _keeping_marks))
        calls: dict[str, list[str]] = {}
        stack.enter_context(_replaced(debug, _NOTE, lambda note: _noting(note, calls)))
        stack.enter_context(_replaced(debug, _ACCOUNT, lambda account: _telling(account, calls, compilations)))
        yield compilations


def groups(kernels: Iterable[Kernel], graph: fx.Graph) -> list[Fused]:
    """The kernels that do the work of several layers, by the layers of the given graph."""
    found = (Fused(_DECORATION.sub("", kernel.name), layers_of(kernel.nodes, graph)) for kernel in kernels)
    return [group for group in found if len(group.layers) > 1]


def layers_of(names: frozenset[str], graph: fx.Graph) -> tuple[str, ...]:
    """The layers of these nodes of a graph, in its order."""
    return names_of(node for node in graph.nodes if node.name in names)


def kernels_of(operators: Iterable[str], kernels: Iterable[Kernel]) -> list[Kernel | None]:
    """The kernel that each operator of a profile is, by name and order; None for one that is none of them.

    >>> addmm = Kernel("extern_kernels.addmm", frozenset({"linear"}))
    >>> kernels_of(["aten::addmm", "aten::addmm"], [addmm]) == [addmm, None]
    True
    """
    left, found = list(kernels), list[Kernel | None]()
    for operator in operators:
        place = next((place for place, kernel in enumerate(left) if _is_run_as(kernel.name, operator)), None)
        found.append(None if place is None else left[place])
        left = left if place is None else left[place + 1 :]
    return found


def _is_run_as(kernel: str, operator: str) -> bool:
    return kernel == operator or operator.rpartition("::")[2] in kernel.split(".")


@contextlib.contextmanager
def _marked(graph: fx.Graph) -> Iterator[None]:
    """The nodes of a graph that compute, marked by their own names."""
    nodes = [node for node in graph.nodes if node.op == "call_function" and not _moves(node)]
    for node in nodes:
        _mark(node, frozenset({node.name}))
    try:
        yield
    finally:
        for node in nodes:
            del node.meta[_CUSTOM][_MARK]
            if not node.meta[_CUSTOM]:
                del node.meta[_CUSTOM]


def _mark(node: fx.Node, names: frozenset[str]) -> None:
    node.meta[_CUSTOM] = {**(node.meta.get(_CUSTOM) or {}), _MARK: names}


def _marks(node: fx.Node) -> frozenset[str]:
    """Of which nodes it does work; none for one that only moves data, although it was made of some."""
    marks: frozenset[str] = (node.meta.get(_CUSTOM) or {}).get(_MARK, frozenset())
    return frozenset() if _moves(node) else marks


def _moves(node: fx.Node) -> bool:
    name = getattr(node.target, "_opname", None) or getattr(node.target, "__name__", "")
    return node.op != "call_function" or name in _MOVES


def _keeping_marks(apply: Callable[..., Any]) -> Callable[..., Any]:
    """A pattern's `apply` that gives what it puts into a graph the marks of what it takes out."""

    def applied(entry: Any, match: Any, graph: fx.Graph, node: fx.Node) -> Any:
        before = set(graph.nodes)
        names = _all(map(_marks, match.nodes))
        result = apply(entry, match, graph, node)
        for new in set(graph.nodes) - before:
            _mark(new, names)
        return result

    return applied


def _noting(trace: Callable[..., Any], calls: dict[str, list[str]]) -> Callable[..., Any]:
    """Inductor's note of a kernel; for a call of a library with all nodes behind it, of which Inductor keeps one."""

    def traced(schedule: Any, kernel: str, is_extern: bool = False) -> Any:
        handle = trace(schedule, kernel, is_extern)
        if is_extern and hasattr(schedule, "origins"):
            calls[f"{kernel}:{handle}"] = [origin.name for origin in schedule.origins]
        return handle

    return traced


def _telling(
    dump: Callable[[], Any], calls: dict[str, list[str]], compilations: list[list[Kernel]]
) -> Callable[[], Any]:
    """Inductor's own account of provenance, read before it is gone."""

    def told() -> Any:
        from torch._inductor import debug
        from torch._inductor.virtualized import V

        with contextlib.suppress(AttributeError):  # an Inductor that keeps this elsewhere compiles all the same
            marks = {node.name: _marks(node) for node in V.graph.graph.nodes}
            named = {**debug._inductor_triton_kernel_to_post_grad_node_info, **calls}
            compilations.append(_shared_out(named, list(calls), marks))
        calls.clear()
        return dump()

    return told


def _shared_out(
    named: Mapping[str, Sequence[str]], calls: Sequence[str], marks: Mapping[str, frozenset[str]]
) -> list[Kernel]:
    """Kernels with their nodes, from the nodes of the last graph that `named` gives for each, and what those are marked
    with, in that graph's order.

    A call of a library is made for one node, the last of those that it is named by. Any other node belongs to the first
    kernel that computes it. A copy to another layout, or of a result, is named by the same nodes and does none of their
    work.
    """
    last_first = [name for name in reversed(list(marks)) if marks[name]]
    made_for = ((next((name for name in last_first if name in named[kernel]), ""), kernel) for kernel in calls)
    owners: dict[str, str] = {}
    for name, kernel in made_for:
        owners.setdefault(name, kernel)
    for kernel in named:
        for name in named[kernel]:
            owners.setdefault(name, kernel)
    return [
        Kernel(
            kernel.rpartition(":")[0],
            _all(marks.get(name, frozenset()) for name in names if owners[name] == kernel),
        )
        for kernel, names in named.items()
    ]


def _all(sets: Iterable[frozenset[str]]) -> frozenset[str]:
    return frozenset[str]().union(*sets)


@contextlib.contextmanager
def _replaced(holder: Any, name: str, change: Callable[[Any], Any]) -> Iterator[None]:
    """An attribute changed for a while; nothing where there is no such attribute."""
    original = getattr(holder, name, None)
    if original is None:
        yield
        return
    setattr(holder, name, change(original))
    try:
        yield
    finally:
        setattr(holder, name, original)
