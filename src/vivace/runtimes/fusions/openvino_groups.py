"""What OpenVINO fused: the operators of the graph that it runs, each with the names of those that it was made from."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import fx

from vivace.core.program import Model
from vivace.runtimes.fusions.naming import Group
from vivace.runtimes.graphs.counts import BATCH_NORM
from vivace.runtimes.graphs.layers import is_product, path_of
from vivace.runtimes.onnx_graph import quiet
from vivace.runtimes.openvino_graph import import_openvino, layers_of
from vivace.runtimes.openvino_session import compiled, exact_shapes

_DATA = frozenset({"Input", "Output", "Const", "Reorder", "Reshape", "Transpose"})


def groups(model: Model) -> list[Group]:
    """Each operator that computes, with its originals; of the compilation for the example's shapes where there is one.

    Source: OpenVINO, CompiledModel::get_runtime_model and openvino/runtime/exec_model_info.hpp.
    """
    engine = compiled(import_openvino(), model, next(iter(exact_shapes(model.settings)), None))
    operators = engine.get_runtime_model().get_ordered_ops()
    return [(kind, names) for kind, names in map(kind_and_names, operators) if kind not in _DATA]


def kind_and_names(operator: Any) -> Group:
    """What an operator of the graph that runs computes, and the names of those that it was made from."""
    names = note_of(operator, "originalLayersNames").split(",")
    return note_of(operator, "layerType"), [name for name in names if name]


def nodes_of(captured: Model, model: Model) -> Mapping[str, fx.Node]:
    """The nodes of a captured graph by the names that OpenVINO gives them in a model that was converted from it.

    They are those after its own decomposition of the graph, and the graph's own where that cannot be had. A product
    whose name was lost is there by its new one, which stands for the batch normalization where that was folded in.
    """
    nodes = {node.name: node for node in captured.program.graph.nodes if node.op == "call_function"}
    with contextlib.suppress(ImportError, AttributeError, RuntimeError), quiet():
        import_openvino()
        from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder

        graph = TorchFXPythonDecoder.from_exported_program(captured.program).pt_module.graph
        nodes = {node.name: node for node in graph.nodes if node.op == "call_function"}
    return nodes | _renamed(captured, model, nodes)


def _renamed(captured: Model, model: Model, nodes: Mapping[str, fx.Node]) -> dict[str, fx.Node]:
    """Products that the converted graph calls otherwise, found by their weights."""
    own = {node.name: node for node in captured.program.graph.nodes if is_product(node)}
    same = dict(_same_products(own.values(), [node for node in nodes.values() if is_product(node)]))
    found = layers_of(model, captured)
    told = {name: same.get(layer) for name, layer in found.items() if name.partition("/")[0] not in nodes}
    return {name: _with_normalization(node) for name, node in told.items() if node is not None}


def _same_products(captured: Iterable[fx.Node], decomposed: Iterable[fx.Node]) -> Iterator[tuple[str, fx.Node]]:
    """Which product of the decomposed graph a captured one is: of the same module, in the same order."""
    ones, others = ([(path_of(node), node) for node in nodes] for nodes in (captured, decomposed))
    for path in dict.fromkeys(path for path, _ in ones):
        here, there = ([node for other, node in side if other == path] for side in (ones, others))
        if len(here) == len(there):
            yield from ((one.name, other) for one, other in zip(here, there, strict=True))


def _with_normalization(product: fx.Node) -> fx.Node:
    """The batch normalization that alone takes a product, which stands for both; the product where there is none."""
    users = list(product.users)
    is_normalized = len(users) == 1 and getattr(users[0].target, "_opname", "") in BATCH_NORM
    return users[0] if is_normalized else product


def note_of(operator: Any, key: str) -> str:
    """What OpenVINO notes of an operator under a key; empty where it notes nothing."""
    notes = operator.get_rt_info()
    return str(notes[key].astype(str)) if key in notes else ""
