"""Recognizes attention that a graph spells out: softmax(scale * q k' + masks) v, in the ways that people write it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg

from vivace.techniques.graph import GraphEdit
from vivace.techniques.rewrite.operands import Operand, Operands, batch_fits, is_merge, same, shape_of, two_operands

aten = torch.ops.aten
SOFTMAXES = (aten.softmax.int, aten._softmax.default)
CASTS = (aten.to.dtype, aten._to_copy.default)
COPIES = (aten.alias.default, aten.detach.default, aten.contiguous.default, aten.clone.default, *CASTS)
HIDES = -1e9
"""A finite mask value from which adding it and putting it in place of a score come to the same, in float32."""


class Unlike(Exception):
    """Why a softmax is not the middle of an attention that can be rewritten."""


@dataclasses.dataclass(frozen=True)
class Mask:
    """One mask over the scores: added (times `factor`), or where true (false when `keeps`) replaced by `value`."""

    node: Node
    factor: float = 1.0
    value: float | None = None
    keeps: bool = False


@dataclasses.dataclass(frozen=True)
class Attention:
    """A spelled-out attention: `result` is the node that the rewritten one takes the place of.

    Operands are query [*batch, L, E], key [*batch, S, E] and value [*batch, S, Ev], before broadcasting; `order` says
    which dimension of [*batch, L, Ev] each dimension of `result` is, where it is not the same.
    """

    query: Operand
    key: Operand
    value: Operand
    scale: float
    masks: tuple[Mask, ...]
    batch: tuple[Any, ...]
    result: Node
    order: tuple[int, ...] | None


def find(edit: GraphEdit) -> Iterator[Attention | Unlike]:
    """For each softmax of the graph, the attention around it or why there is none."""
    for softmax in edit.calls(*SOFTMAXES):
        try:
            yield _around(edit, softmax)
        except Unlike as reason:
            yield reason


def constant(edit: GraphEdit, node: Any) -> Tensor | None:
    """The value of a node that depends on weights and numbers alone; None for any other."""
    try:
        found = _evaluate(edit, node)
    except (KeyError, RuntimeError, TypeError):
        return None
    return found if isinstance(found, Tensor) else None


def users(node: Node) -> list[Node]:
    """Who uses a node, apart from checks of its dtype."""
    return [user for user in node.users if user.target is not aten._assert_tensor_metadata.default]


def _around(edit: GraphEdit, softmax: Node) -> Attention:
    rank = len(shape_of(softmax))
    if not isinstance(softmax.args[1], int) or softmax.args[1] % rank != rank - 1:
        raise Unlike(f"{softmax.name} runs over dimension {softmax.args[1]}, not over the last")
    result, mixing = _downward(softmax)
    product, scale, masks, path = _upward(edit, softmax.args[0], 1.0)
    scoring = two_operands(product)
    assert scoring is not None
    scores = shape_of(max((softmax, *path), key=lambda node: len(shape_of(node))))
    batch = scores[:-2]
    found = [side.fitted(batch) for side in (scoring.first, scoring.second.swapped(), mixing.second)]
    if not _are_matrices(found, scores) or not all(batch_fits(shape_of(mask.node), scores) for mask in masks):
        raise Unlike(f"the shapes around {softmax.name} are not those of attention")
    query, key, value = (side for side in found if side is not None)
    if {_dtype(side.node) for side in (query, key, value)} != {_dtype(result)} or _is_finer(softmax, result):
        raise Unlike(f"the precisions around {softmax.name} are mixed")
    attention = Attention(query, key, value, scale, tuple(masks), tuple(batch), result, mixing.order_of_result)
    if not all(map(same, _result_shape(attention), shape_of(result))):
        raise Unlike(f"the shape of {result.name} is not that of attention")
    return attention


def _are_matrices(operands: Sequence[Operand | None], scores: Sequence[Any]) -> bool:
    """Whether three operands are queries [L, E], keys [S, E] and values [S, Ev] for scores [L, S]."""
    query, key, value = operands
    if query is None or key is None or value is None:
        return False
    pairs = [(query.shape[-2], scores[-2]), (key.shape[-2], scores[-1]), (value.shape[-2], scores[-1])]
    return all(same(one, other) for one, other in [*pairs, (query.shape[-1], key.shape[-1])])


def _result_shape(attention: Attention) -> tuple[Any, ...]:
    """What the shape of the result must be; batch dimensions may be merged to one."""
    whole = (*attention.batch, attention.query.shape[-2], attention.value.shape[-1])
    if attention.order is not None:
        return tuple(whole[place] for place in attention.order)
    is_merged = len(shape_of(attention.result)) == 3 and len(whole) > 3
    return (math.prod(attention.batch), *whole[-2:]) if is_merged else whole


def _dtype(node: Node) -> torch.dtype:
    dtype: torch.dtype = node.meta["val"].dtype
    return dtype


def _is_finer(softmax: Node, result: Node) -> bool:
    """Whether the softmax is computed in a precision that neither the result has nor float32 reaches."""
    return _dtype(softmax) not in (_dtype(result), torch.float32)


def _downward(softmax: Node) -> tuple[Node, Operands]:
    """From a softmax to the product with the values."""
    node = softmax
    while True:
        used = users(node)
        if len(used) != 1:
            raise Unlike(f"the probabilities {softmax.name} are used elsewhere too")
        after = used[0]
        if _passes(after) and after.args[0] is node:
            node = after
            continue
        operands = two_operands(after)
        if operands is None or operands.first != Operand.of(node):
            raise Unlike(f"the probabilities {softmax.name} are not multiplied by values")
        return after, operands


def _passes(node: Node) -> bool:
    """Whether a node hands its first input on: a copy, a float cast, a dropout that is off, a merge of batches."""
    if node.target is aten.dropout.default:
        return node.args[2] is False
    if node.target in CASTS:
        return bool(node.meta["val"].dtype.is_floating_point)
    return node.target in COPIES or is_merge(node)


def _upward(edit: GraphEdit, node: Any, outer: float) -> tuple[Node, float, list[Mask], list[Node]]:
    """From a softmax's input to the product of queries and keys: that product, its scale, the masks, the way."""
    if not isinstance(node, Node) or node.op != "call_function":
        raise Unlike("a softmax is not over products of queries and keys")
    if len(users(node)) != 1:
        raise Unlike(f"the scores {node.name} are used elsewhere too")
    operands = two_operands(node)
    if operands is not None:
        if operands.order_of_result is not None:
            raise Unlike(f"{node.name} is not a product of queries and keys")
        return node, outer, [], [node]
    if _passes(node):
        return _on(node, _upward(edit, node.args[0], outer))
    factor = _factor(edit, node)
    if factor is not None:
        return _on(node, _upward(edit, factor[0], outer * factor[1]))
    if node.target in (aten.add.Tensor, aten.sub.Tensor):
        return _sum(edit, node, outer)
    scores, mask = _hidden(edit, node)
    product, scale, masks, path = _upward(edit, scores, outer)
    return product, scale, [*masks, mask], [node, *path]


_Way = tuple[Node, float, list[Mask], list[Node]]


def _on(node: Node, way: _Way) -> _Way:
    return way[0], way[1], way[2], [node, *way[3]]


def _sum(edit: GraphEdit, node: Node, outer: float) -> _Way:
    """Scores with an additive mask, on either side."""
    left, right = node.args[:2]
    sign = -1.0 if node.target is aten.sub.Tensor else 1.0
    sides = [(left, right, sign)] if sign < 0 else [(left, right, 1.0), (right, left, 1.0)]
    for scores, mask, factor in sides:
        if not isinstance(mask, Node) or not shape_of(mask) or node.kwargs or not _dtype(mask).is_floating_point:
            continue
        try:
            product, scale, masks, path = _upward(edit, scores, outer)
        except Unlike:
            continue
        return product, scale, [*masks, Mask(mask, factor * outer)], [node, *path]
    raise Unlike(f"{node.name} does not add a mask to products of queries and keys")


def _hidden(edit: GraphEdit, node: Node) -> tuple[Any, Mask]:
    """Scores of which some are replaced by a value that hides them, and the mask that says which."""
    if node.target in (aten.masked_fill.Scalar, aten.masked_fill.Tensor):
        scores, where, value, keeps = node.args[0], node.args[1], node.args[2], False
    elif node.target in (aten.where.self, aten.where.ScalarOther):
        where, scores, value, keeps = node.args[0], node.args[1], node.args[2], True
    else:
        raise Unlike(f"{node.name} stands between the scores and their softmax")
    number = _number(edit, value)
    if number is None or number > HIDES:
        raise Unlike(f"{node.name} replaces scores by {value}, which does not hide them")
    if not isinstance(where, Node) or _dtype(where) is not torch.bool:
        raise Unlike(f"{node.name} hides scores by something that is not true or false")
    return scores, Mask(where, value=number, keeps=keeps)


def _factor(edit: GraphEdit, node: Node) -> tuple[Any, float] | None:
    """What a node multiplies or divides by one positive number, and that number; None when it does neither."""
    if node.target not in (aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar):
        return None
    divides = node.target in (aten.div.Tensor, aten.div.Scalar)
    for scores, other in ((node.args[0], node.args[1]), (node.args[1], node.args[0])):
        number = _number(edit, other)
        if number is not None and number > 0 and math.isfinite(number):
            return scores, 1 / number if divides else number
        if divides:
            break
    return None


def _number(edit: GraphEdit, value: Any) -> float | None:
    """A number, or a weight of one element."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, Node) or not all(same(size, 1) for size in shape_of(value)):
        return None
    found = constant(edit, value)
    return None if found is None else float(found)


def _evaluate(edit: GraphEdit, node: Any) -> Any:
    """Run the part of a graph that makes a node, on copies of weights; KeyError where it needs an input."""
    if not isinstance(node, Node):
        return node
    weight = edit.weight(node)
    if weight is not None:
        return weight.clone()
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        raise KeyError(node.name)
    if torch.Tag.nondeterministic_seeded in node.target.tags:
        raise KeyError(node.name)
    args, kwargs = map_arg((node.args, node.kwargs), lambda n: _evaluate(edit, n))
    with torch.no_grad():
        return node.target(*args, **kwargs)


def is_causal(edit: GraphEdit, attention: Attention) -> bool:
    """Whether the one mask is constant and hides exactly the keys after each query, for as many queries as keys."""
    if len(attention.masks) != 1:
        return False
    mask = attention.masks[0]
    queries, keys = attention.query.shape[-2], attention.key.shape[-2]
    value = constant(edit, mask.node)
    if value is None or not same(queries, keys) or value.shape[-2:] != (queries, keys):
        return False
    if mask.value is None:
        hides = value.double() * mask.factor
        if not bool(((hides == 0) | (hides <= HIDES)).all()):
            return False
        kept = hides == 0
    else:
        kept = value if mask.keeps else ~value
    return bool((kept == torch.ones(queries, keys, dtype=torch.bool).tril()).all())
