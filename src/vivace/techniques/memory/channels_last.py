"""Keeps images with their channels innermost, as convolution kernels like them."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch.fx import Node
from torch.utils import _pytree as pytree

from vivace.core.cost import Cost
from vivace.core.errors import NotApplicable
from vivace.core.facts import Fact
from vivace.core.program import Model
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.training.job import Training
from vivace.core.training.rig import Rig
from vivace.core.work import Work
from vivace.techniques.graph import GraphEdit, torch_program

aten = torch.ops.aten
CONVOLUTIONS = (aten.conv2d.default, aten.conv2d.padding, aten.conv_transpose2d.input, aten.convolution.default)


@dataclasses.dataclass(frozen=True)
class ChannelsLast(Technique):
    """Weights of two-dimensional convolutions stored channels-last, and four-dimensional inputs converted at entry.

    The layout then spreads from convolution to convolution by itself. Answers leave in the plain layout. Kernels of the
    other layout may sum in another order, so the effect is ROUNDED. Raises NotApplicable without a two-dimensional
    convolution, or when the weights lie so already (those of 1 x 1 convolutions always do).

    Source: https://docs.pytorch.org/tutorials/intermediate/memory_format_tutorial.html, read in November 2026.

    >>> ChannelsLast.name()
    'channels-last'
    """

    stage = Stage.MEMORY
    family = Family.SYSTEM
    effect = Effect.ROUNDED
    needs = frozenset({Fact.TORCH_GRAPH, Fact.HAS_CONV2D, Fact.UNCOMPILED})
    gives = frozenset({Fact.CHANNELS_LAST})
    breaks = frozenset({Fact.ONNX_READY, Fact.OPENVINO_READY})
    source = "https://docs.pytorch.org/tutorials/intermediate/memory_format_tutorial.html"

    def rewrite(self, cost: Cost) -> Cost:
        """No reordering around each convolution, so a larger share of the ceiling."""
        return cost.replace(efficiency=min(1.0, cost.efficiency * 1.15))

    def apply(self, model: Model, work: Work) -> Model:
        """The model with channels-last weights and inputs."""
        edit = GraphEdit(torch_program(model))
        if not sum(_convert_weight(edit, node) for node in edit.calls(*CONVOLUTIONS)):
            raise NotApplicable("no two-dimensional convolution has weights that could change their layout")
        for node in edit.graph.find_nodes(op="placeholder"):
            if edit.weight(node) is None and _is_image(node):
                _convert_after(edit, node)
        for node in edit.calls(aten.view.default):
            node.target = aten.reshape.default  # a view of channels-last memory does not always exist
        _restore_answers(edit)
        return model.replace(program=edit.close(), lineage=(*model.lineage, str(self)))

    def equip(self, rig: Rig, job: Training) -> Rig:
        """A training whose four-dimensional weights and batches lie channels-last."""
        weights = [weight for weight in rig.model.parameters() if weight.ndim == 4]
        if not any(not weight.is_contiguous(memory_format=torch.channels_last) for weight in weights):
            raise NotApplicable("no weight of four dimensions could change its layout")
        rig.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        forward = rig.forward
        return rig.replace(forward=lambda batch: forward(pytree.tree_map(_as_channels_last, batch)))


def _convert_weight(edit: GraphEdit, product: Node) -> bool:
    """Store a weight with its channels innermost, and give the convolution a view of it in the usual order."""
    node = product.args[1]
    value = edit.weight(node)
    if value is None or value.dim() != 4 or value.shape[2:].numel() == 1:
        return False
    if value.is_contiguous(memory_format=torch.channels_last):
        return False
    stored = edit.add_weight(f"{product.name}_channels_last", value.permute(0, 2, 3, 1).contiguous())
    with edit.graph.inserting_before(product):
        view = edit.graph.call_function(aten.permute.default, (stored, [0, 3, 1, 2]))
    product.args = (product.args[0], view, *product.args[2:])
    return True


def _is_image(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dim() == 4 and value.dtype.is_floating_point


def _convert_after(edit: GraphEdit, node: Node) -> None:
    users = list(node.users)
    with edit.graph.inserting_before(next(n for n in edit.graph.nodes if n.op != "placeholder")):
        converted = edit.graph.call_function(aten.contiguous.default, (node,), {"memory_format": torch.channels_last})
    for user in users:
        user.replace_input_with(node, converted)


def _restore_answers(edit: GraphEdit) -> None:
    output = edit.graph.output_node()
    with edit.graph.inserting_before(output):
        output.args = (tuple(_plain(edit, node) for node in output.args[0]),)  # type: ignore[union-attr]


def _plain(edit: GraphEdit, node: Any) -> Any:
    if not isinstance(node, Node) or not _is_image(node):
        return node
    return edit.graph.call_function(aten.contiguous.default, (node,))


def _as_channels_last(leaf: Any) -> Any:
    is_image = torch.is_tensor(leaf) and leaf.ndim == 4
    return leaf.contiguous(memory_format=torch.channels_last) if is_image else leaf
