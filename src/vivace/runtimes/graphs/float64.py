"""A captured graph computed in float64: what its arithmetic gives when nothing is rounded to fewer bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from vivace.core.errors import NotApplicable
from vivace.runtimes import eager

NARROW = (torch.float32, torch.bfloat16, torch.float16)


def in_float64(program: ExportedProgram, calls: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
    """The flat answers to flat calls, with every float of the graph, its weights and its inputs in float64.

    For networks whose own code keeps them in float32 whatever their weights are (Keras). Raises NotApplicable where an
    operator has no float64 kernel.
    """
    run = eager.open_function(program, _widen)
    weights = [_wide(value) for value in eager.lifted_values(program)]
    try:
        with torch.no_grad():
            return [list(run(*weights, *map(_wide, leaves))) for leaves in calls]
    except Exception as error:  # kernels raise what they like
        told = " ".join(str(error).split())[:200]
        raise NotApplicable(f"the network does not run in float64: {type(error).__name__}: {told}") from error


def _widen(graph: fx.Graph) -> None:
    for node in graph.nodes:
        node.args = fx.node.map_aggregate(node.args, _wide)
        node.kwargs = fx.node.map_aggregate(node.kwargs, _wide)


def _wide(value: Any) -> Any:
    """A tensor or a dtype of fewer bits in float64; anything else as it is."""
    if isinstance(value, Tensor):
        return value.double() if value.dtype in NARROW else value
    return torch.float64 if any(value is dtype for dtype in NARROW) else value
