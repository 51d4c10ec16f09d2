"""Folding of inference-mode batch normalization into the product before it; shared by the two fold techniques."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Node

from vivace.core.layer import Fused
from vivace.runtimes.graphs.layers import names_of
from vivace.techniques.graph import GraphEdit

BATCH_NORM = torch.ops.aten.batch_norm.default


def fold_batchnorms(edit: GraphEdit, products: tuple[Any, ...], fits: Callable[[Node], bool]) -> tuple[Fused, ...]:
    """Fold every batch normalization whose input is one of `products` and satisfies `fits`; says what was folded.

    With s = gamma / sqrt(variance + epsilon), computed in float64: weight' = weight * s along the output channels and
    bias' = (bias - mean) * s + beta. Left alone are products whose output or weights have another user, products whose
    weights are not constants, and normalizations in training mode.
    """
    return tuple(_fold(edit, norm) for norm in edit.calls(BATCH_NORM) if _foldable(edit, norm, products, fits))


def _foldable(edit: GraphEdit, norm: Node, products: tuple[Any, ...], fits: Callable[[Node], bool]) -> bool:
    product = norm.args[0]
    if not isinstance(product, Node) or product.target not in products or len(product.users) != 1:
        return False
    weight, bias = _argument(product, 1), _argument(product, 2)
    owned = all(edit.weight(node) is not None and len(node.users) == 1 for node in (weight, bias) if node is not None)
    statistics = all(edit.weight(node) is not None for node in norm.args[3:5])
    affine = all(node is None or edit.weight(node) is not None for node in norm.args[1:3])
    return owned and statistics and affine and norm.args[5] is False and fits(product)


def _fold(edit: GraphEdit, norm: Node) -> Fused:
    product, gamma, beta, mean, variance = norm.args[:5]
    assert isinstance(product, Node) and isinstance(product.args[1], Node)
    weight = _double(edit, product.args[1])
    scale = torch.rsqrt(_double(edit, variance) + float(norm.args[7]))  # type: ignore[arg-type]
    scale = scale if gamma is None else scale * _double(edit, gamma)
    bias_node = _argument(product, 2)
    bias = -_double(edit, mean) if bias_node is None else _double(edit, bias_node) - _double(edit, mean)
    bias = bias * scale if beta is None else bias * scale + _double(edit, beta)
    dtype = product.meta["val"].dtype
    edit.set_weight(product.args[1], (weight * scale.reshape(-1, *[1] * (weight.dim() - 1))).to(dtype))
    _set_bias(edit, product, bias_node, bias.to(dtype))
    norm.replace_all_uses_with(product)
    edit.graph.erase_node(norm)
    return Fused(product.target._opname, names_of([product, norm]))  # type: ignore[union-attr]


def _set_bias(edit: GraphEdit, product: Node, old: Any, bias: torch.Tensor) -> None:
    if isinstance(old, Node):
        edit.set_weight(old, bias)
        return
    new = edit.add_weight(f"{product.name}_folded_bias", bias)
    product.args = (*product.args[:2], new, *product.args[3:])


def _double(edit: GraphEdit, node: Any) -> torch.Tensor:
    value = edit.weight(node)
    assert value is not None
    return value.double()


def _argument(node: Node, position: int) -> Any:
    return node.args[position] if len(node.args) > position else None
