"""How long each operator of a graph takes, MEASURED: by what lanes and stages are chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from vivace.measure.clock import SystemClock
from vivace.runtimes import eager
from vivace.runtimes.lanes.run import operators_of
from vivace.runtimes.settings.around import threads

TIMED = 5
"""How often each operator is timed; the quickest counts."""


class _Timed(fx.Interpreter):
    """Runs a graph operator by operator and times each."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.clock = SystemClock()
        self.seconds: list[float] = []

    def run_node(self, n: fx.Node) -> Any:
        began = self.clock.now()
        found = super().run_node(n)
        if any(isinstance(one, torch.Tensor) and one.is_cuda for one in pytree.tree_leaves(found)):
            torch.cuda.synchronize()
        if n.op not in ("placeholder", "output"):
            self.seconds.append(self.clock.now() - began)
        return found


def seconds_of(
    program: ExportedProgram, leaves: Sequence[torch.Tensor], count: int, device: str = "cpu"
) -> list[float]:
    """Seconds of each operator with so many threads, MEASURED: the least of some runs, on the device."""
    program, leaves = eager.placed(program, device), [leaf.to(device) for leaf in leaves]
    module = fx.GraphModule(program.graph_module, eager.copied_graph(program))
    runs: list[list[float]] = []
    with threads(count), torch.inference_mode():
        for _ in range(TIMED):
            timed = _Timed(module)
            timed.run(*eager.lifted_values(program), *leaves)
            runs.append(timed.seconds)
    return [min(column) for column in zip(*runs, strict=True)]


def writing(program: ExportedProgram) -> str | None:
    """The name of the first operator that writes into a tensor of its own; None where none does."""
    nodes = operators_of(eager.copied_graph(program))
    return next((node.name for node in nodes if _writes(node)), None)


def _writes(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)
