"""The layers of a captured graph: its convolutions and matrix products, by node and by the module they came from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from torch import fx

from vivace.core.layer import Layer
from vivace.core.program import Form, Model

PRODUCTS = frozenset({"conv1d", "conv2d", "conv3d", "convolution", "linear", "addmm", "mm", "matmul", "bmm"})
WRAPPER = "module."
"""Under which `capture` puts the user's model."""
_WHOLE = "module"
"""The path of what the user's model does itself."""
_NOWHERE = "_empty_nn_module_stack_from_metadata_hook"
"""What torch.export writes for a node that it made itself, such as one that asks for a size."""
_ROOT = re.compile(r"^L\['?self'?\]\.?|^L__self___?")


def layers_of(model: Model) -> tuple[Layer, ...]:
    """The layers of a program of form TORCH, in the graph's order; none for another form."""
    if model.form is not Form.TORCH:
        return ()
    return tuple(_layers(model.program.graph))


def is_product(node: fx.Node) -> bool:
    """Whether a node is a convolution or a matrix product."""
    return node.op == "call_function" and getattr(node.target, "_opname", "") in PRODUCTS


def path_of(node: fx.Node) -> str:
    """The path of the module that a node came from, such as "encoder.0.attention"; empty where there is none."""
    stack: dict[str, Any] = node.meta.get("nn_module_stack") or {}
    entries = (entry for key, entry in stack.items() if key != _NOWHERE)
    paths = [entry[0] if isinstance(entry, tuple) else str(entry) for entry in entries]
    return _ROOT.sub("", paths[-1]).removeprefix(WRAPPER) if paths else ""


def names_of(nodes: Iterable[fx.Node]) -> tuple[str, ...]:
    """The layers that these nodes belong to, each once: the path of a node's module, with the node's own name where
    the module has modules of its own; the name alone where the user's model does it itself."""
    return tuple(dict.fromkeys(each_name(nodes)))


def each_name(nodes: Iterable[fx.Node]) -> list[str]:
    """The layer that each of these nodes of one graph belongs to, as `names_of` names it."""
    nodes = list(nodes)
    inner = enclosing(path_of(node) for node in (nodes[0].graph.nodes if nodes else ()))
    return [_name_of(node, inner) for node in nodes]


def enclosing(paths: Iterable[str]) -> set[str]:
    """The paths of the modules that hold others.

    >>> sorted(enclosing(["encoder.0.norm", "head"]))
    ['encoder', 'encoder.0']
    """
    return {".".join(parts[:count]) for path in paths for parts in [path.split(".")] for count in range(1, len(parts))}


def _name_of(node: fx.Node, inner: set[str]) -> str:
    path = path_of(node)
    if path in ("", _WHOLE):
        return node.name
    return f"{path}/{node.name}" if path in inner else path


def _layers(graph: fx.Graph) -> Iterator[Layer]:
    for node in graph.nodes:
        if is_product(node):
            yield Layer(node.name, path_of(node), node.target._opname)
