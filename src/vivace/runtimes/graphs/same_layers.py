"""Which operator of a converted graph is which layer of the captured one: by name, and by weights where names are lost.

Converters rename what they fuse: a convolution that a batch norm was folded into has another name, and weights that
differ by a factor for each output channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import fx
from torch.export import ExportedProgram

from vivace.runtimes.graphs.layers import is_product

ALIKE = 0.99
"""Least cosine, in the median over output channels, of a layer's weights with those of its converted form."""
Weights = npt.NDArray[np.floating[Any]]


def weights_of(program: ExportedProgram) -> dict[str, Weights]:
    """The constant weight of each layer of a captured graph that has one, by the layer's name."""
    signature = program.graph_signature
    targets = {str(spec.arg.name): str(spec.target) for spec in signature.input_specs if spec.target is not None}
    found: dict[str, Weights] = {}
    for node in program.graph.nodes:
        target = targets.get(_source(node)) if is_product(node) else None
        value = program.state_dict.get(target, program.constants.get(target)) if target is not None else None
        if value is not None:
            found[node.name] = value.detach().float().numpy()
    return found


def matched(layers: Mapping[str, Weights], operators: Mapping[str, Weights]) -> dict[str, str]:
    """For each operator, by its weights, the layer that it came from. What is like no layer is left out.

    >>> matched({"a": np.eye(2), "b": np.ones((2, 2))}, {"x": np.full((2, 2), 3.0), "y": 2 * np.eye(2)})
    {'x': 'b', 'y': 'a'}
    """
    left = {name: _rows(weight) for name, weight in layers.items()}
    found: dict[str, str] = {}
    for operator, weight in operators.items():
        forms = [_rows(weight), _rows(weight.T)] if weight.ndim == 2 else [_rows(weight)]
        likeness = {name: max(_likeness(rows, form) for form in forms) for name, rows in left.items()}
        best = max(likeness, key=lambda name: likeness[name], default=None)
        if best is not None and likeness[best] >= ALIKE:
            found[operator] = best
            del left[best]
    return found


def _source(node: fx.Node) -> str:
    """The name of the graph's input that a product's weight is a view of; empty when it is computed."""
    place = 2 if getattr(node.target, "_opname", "") == "addmm" else 1
    value: Any = node.args[place] if len(node.args) > place else None
    while isinstance(value, fx.Node) and value.op == "call_function" and len(value.all_input_nodes) == 1:
        value = value.all_input_nodes[0]
    return value.name if isinstance(value, fx.Node) and value.op == "placeholder" else ""


def _rows(weight: Weights) -> Weights:
    """One row an output channel, each of length 1. A grouped convolution's leading axes count together."""
    flat = weight.reshape(weight.shape[0] * weight.shape[1], -1) if weight.ndim == 5 else weight
    rows = np.asarray(flat.reshape(flat.shape[0], -1), dtype=np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1.0)


def _likeness(one: Weights, other: Weights) -> float:
    """The median absolute cosine of two sets of rows; 0 for other shapes."""
    if one.shape != other.shape:
        return 0.0
    return float(np.median(np.abs((one * other).sum(axis=1))))
