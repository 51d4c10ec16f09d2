"""The way from a softmax up to the product of queries and keys: the scales, temperatures and masks on it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch.fx import Node

from vivace.techniques.graph import GraphEdit
from vivace.techniques.rewrite.masks import HIDES, Mask, Unlike
from vivace.techniques.rewrite.operands import Operand, Operands, is_merge, same, shape_of
from vivace.techniques.rewrite.products import summed_operands, two_operands
from vivace.techniques.rewrite.values import constant, dtype_of, number, uses

aten = torch.ops.aten
CASTS = (aten.to.dtype, aten._to_copy.default)
COPIES = (aten.alias.default, aten.detach.default, aten.contiguous.default, aten.clone.default, *CASTS)
MULTIPLY = (aten.mul.Tensor, aten.mul.Scalar)
DIVIDE = (aten.div.Tensor, aten.div.Scalar)


@dataclasses.dataclass(frozen=True)
class Scores:
    """What a softmax runs over: scale * q k', multiplied or divided by temperatures, then masked, innermost first.

    `path` are the nodes from the softmax's input up to the product.
    """

    operands: Operands
    scale: float
    path: tuple[Node, ...]
    masks: tuple[Mask, ...] = ()
    temperatures: tuple[tuple[Any, Node], ...] = ()

    def by(self, node: Node, *masks: Mask) -> Scores:
        """The same by way of a node, which masks them."""
        return dataclasses.replace(self, path=(node, *self.path), masks=(*self.masks, *masks))


def passes(node: Node) -> bool:
    """Whether a node hands its first input on: a copy, a float cast, a dropout that is off, a merge of batches."""
    if node.target is aten.dropout.default:
        return node.args[2] is False
    if node.target in CASTS:
        return bool(node.meta["val"].dtype.is_floating_point)
    return node.target in COPIES or is_merge(node)


def trace(edit: GraphEdit, node: Any, outer: float) -> Scores:
    """The scores that a node gives, times `outer`. Raises Unlike with the reason where it gives none."""
    if not isinstance(node, Node) or node.op != "call_function":
        raise Unlike("a softmax is not over products of queries and keys")
    if len(uses(node)) != 1:
        raise Unlike(f"the scores {node.name} are used elsewhere too")
    operands = two_operands(node)
    if operands is not None:
        if operands.order_of_result is not None:
            raise Unlike(f"{node.name} is not a product of queries and keys")
        scaled, scale = _scaled(edit, operands)
        return Scores(scaled, outer * scale, (node,))
    if passes(node):
        return trace(edit, node.args[0], outer).by(node)
    summed = _summed(node, outer)
    if summed is not None:
        return summed
    factor = _factor(edit, node)
    if factor is not None:
        return trace(edit, factor[0], outer * factor[1]).by(node)
    if node.target in (*MULTIPLY, *DIVIDE):
        return _tempered(edit, node, outer)
    if node.target in (aten.add.Tensor, aten.sub.Tensor):
        if number(edit, node.args[1]) == 0:
            return trace(edit, node.args[0], outer).by(node)
        return _sum(edit, node, outer)
    scores, mask = _hidden(edit, node, outer)
    return trace(edit, scores, outer).by(node, mask)


def _scaled(edit: GraphEdit, operands: Operands) -> tuple[Operands, float]:
    """The operands before they are multiplied or divided by positive numbers, and the product of these."""
    whole, sides = 1.0, []
    for side in (operands.first, operands.second):
        plain = side.untransposed()
        while (factor := _factor(edit, plain.node)) is not None and _keeps_shape(plain.node, factor[0]):
            plain, whole = Operand(factor[0], plain.axes).untransposed(), whole * factor[1]
        sides.append(plain)
    return dataclasses.replace(operands, first=sides[0], second=sides[1]), whole


def _keeps_shape(node: Node, source: Any) -> bool:
    before, after = shape_of(source), shape_of(node)
    is_like = len(before) == len(after) and all(map(same, before, after))
    return is_like and dtype_of(source) == dtype_of(node)


def _summed(node: Node, outer: float) -> Scores | None:
    """A product to which a mask is added at once; the mask is ignored, whatever it holds, where its factor is zero."""
    found = summed_operands(node)
    if found is None:
        return None
    operands, alpha, term, beta = found
    if not _is_scale(alpha) or not isinstance(beta, int | float) or not math.isfinite(beta):
        raise Unlike(f"{node.name} multiplies the scores by {alpha} and adds {beta} of a mask")
    masks = (Mask(term, float(beta) * outer),) if beta != 0 else ()
    return Scores(operands, float(alpha) * outer, (node,), masks)


def _is_scale(value: Any) -> bool:
    return isinstance(value, int | float) and value > 0 and math.isfinite(value)


def _factor(edit: GraphEdit, node: Node) -> tuple[Any, float] | None:
    """What a node multiplies or divides by one positive number, and that number; None when it does neither."""
    if node.target not in (*MULTIPLY, *DIVIDE):
        return None
    divides = node.target in DIVIDE
    for scores, other in _sides(node):
        value = number(edit, other)
        if value is not None and _is_scale(value):
            return scores, 1 / value if divides else value
    return None


def _sides(node: Node) -> list[tuple[Any, Any]]:
    """The inputs of a sum, product or the like as scores and what they meet, either way round where that may be."""
    left, right = node.args[:2]
    one_way = node.target in (*DIVIDE, aten.sub.Tensor)
    return [(left, right)] if one_way else [(left, right), (right, left)]


def _tempered(edit: GraphEdit, node: Node, outer: float) -> Scores:
    """Scores multiplied or divided by a tensor that is the same for all of a head's queries and keys."""
    if not node.kwargs:
        for scores, other in _sides(node):
            if not isinstance(other, Node) or not all(same(size, 1) for size in shape_of(other)[-2:]):
                continue
            try:
                found = trace(edit, scores, outer)
            except Unlike:
                continue
            if not found.masks:  # which it would multiply too
                temperatures = (*found.temperatures, (node.target, other))
                return dataclasses.replace(found.by(node), temperatures=temperatures)
    raise Unlike(f"{node.name} stands between the scores and their softmax")


def _sum(edit: GraphEdit, node: Node, outer: float) -> Scores:
    """Scores with an additive mask, on either side."""
    sign = -1.0 if node.target is aten.sub.Tensor else 1.0
    for scores, term in _sides(node):
        if not isinstance(term, Node) or not shape_of(term) or node.kwargs or dtype_of(term).is_complex:
            continue
        mask = Mask(term, sign * outer)
        chosen = _chosen(edit, scores, mask)
        try:
            found = trace(edit, scores, outer) if chosen is None else trace(edit, chosen[0], outer).by(scores)
        except Unlike:
            continue
        return found.by(node, mask if chosen is None else chosen[1])
    raise Unlike(f"{node.name} does not add a mask to products of queries and keys")


def _chosen(edit: GraphEdit, product: Any, added: Mask) -> tuple[Any, Mask] | None:
    """GPT-2's s * m + f * (1 - m), m of zeros and ones by its values: s, of which some are replaced by f."""
    if not isinstance(product, Node) or product.target is not aten.mul.Tensor or len(uses(product)) != 1:
        return None
    term = constant(edit, added.node)
    if term is None or not term.numel():
        return None
    values = term.double() * added.factor
    for scores, kept in _sides(product):
        shown = constant(edit, kept)
        if shown is None or shown.shape != values.shape or not bool(((shown == 0) | (shown == 1)).all()):
            continue
        lowest = float(values.min())
        if lowest <= HIDES and bool((values == lowest * (1 - shown)).all()):
            return scores, Mask(added.node, value=lowest)
    return None


def _hidden(edit: GraphEdit, node: Node, outer: float) -> tuple[Any, Mask]:
    """Scores of which some are replaced by a value that hides them, and the mask that says which."""
    if node.target in (aten.masked_fill.Scalar, aten.masked_fill.Tensor):
        scores, where, value, keeps = node.args[0], node.args[1], node.args[2], False
    elif node.target in (aten.where.self, aten.where.ScalarOther):
        where, scores, value, keeps = node.args[0], node.args[1], node.args[2], True
    else:
        raise Unlike(f"{node.name} stands between the scores and their softmax")
    found = number(edit, value)
    if found is None or found * outer > HIDES:
        raise Unlike(f"{node.name} replaces scores by {value}, which does not hide them")
    if not isinstance(where, Node) or dtype_of(where) is not torch.bool:
        raise Unlike(f"{node.name} hides scores by something that is not true or false")
    return scores, Mask(where, value=found * outer, keeps=keeps)
