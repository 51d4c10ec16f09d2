"""Recognizes attention that a graph spells out: softmax(scale * q k' + masks) v, in the ways that people write it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.fx import Node

from vivace.techniques.graph import GraphEdit
from vivace.techniques.rewrite.masks import Mask, Unlike, as_added, is_causal
from vivace.techniques.rewrite.operands import Operand, Operands, batch_fits, permutation, same, shape_of
from vivace.techniques.rewrite.products import two_operands
from vivace.techniques.rewrite.scores import Scores, passes, trace
from vivace.techniques.rewrite.values import dtype_of, uses

aten = torch.ops.aten
SOFTMAXES = (aten.softmax.int, aten._softmax.default)


@dataclasses.dataclass(frozen=True)
class Attention:
    """A spelled-out attention: `result` is the node that the rewritten one takes the place of.

    Operands are query [*batch, L, E], key [*batch, S, E] and value [*batch, S, Ev], before broadcasting; queries are
    multiplied or divided by `temperatures`, [*batch, 1, 1] each. `masks` are meant to be added (or to replace scores by
    minus infinity), one on the other; none where `is_causal`. `order` says which dimension of [*batch, L, Ev] each
    dimension of `result` is, where it is not the same.
    """

    query: Operand
    key: Operand
    value: Operand
    scale: float
    temperatures: tuple[tuple[Any, Node], ...]
    masks: tuple[Mask, ...]
    is_causal: bool
    batch: tuple[Any, ...]
    result: Node
    order: tuple[int, ...] | None

    @property
    def scores(self) -> tuple[Any, ...]:
        """The shape of the scores, [*batch, L, S]."""
        return (*self.batch, self.query.shape[-2], self.key.shape[-2])


def find(edit: GraphEdit) -> Iterator[Attention | Unlike]:
    """For each softmax of the graph, the attention around it or why there is none."""
    for softmax in edit.calls(*SOFTMAXES):
        try:
            yield _around(edit, softmax)
        except Unlike as reason:
            yield reason


def mask_fits(sizes: Sequence[Any], scores: Sequence[Any]) -> bool:
    """Whether a mask broadcasts to scores [*batch, L, S], or does with the batch's dimensions merged to one."""
    return batch_fits(sizes, scores) or (
        len(sizes) == 3 and same(sizes[0], math.prod(scores[:-2])) and batch_fits(sizes[1:], scores[-2:])
    )


def _around(edit: GraphEdit, softmax: Node) -> Attention:
    is_turned = _is_turned(softmax)
    result, mixing = _downward(softmax, is_turned)
    found = trace(edit, softmax.args[0], 1.0)
    first, second = found.operands.first, found.operands.second.swapped()
    scores = shape_of(max((softmax, *found.path), key=lambda node: len(shape_of(node))))
    if is_turned:
        first, second, scores = second, first, (*scores[:-2], scores[-1], scores[-2])
    batch = scores[:-2]
    sides = [side.fitted(batch) for side in (first, second, mixing.second)]
    if not _are_matrices(sides, scores) or not _fit(found, scores) or (is_turned and found.masks):
        raise Unlike(f"the shapes around {softmax.name} are not those of attention")
    query, key, value = (side for side in sides if side is not None)
    dtypes = {dtype_of(node) for node in (query.node, key.node, value.node, *(node for _, node in found.temperatures))}
    if dtypes != {dtype_of(result)} or _is_finer(softmax, result):
        raise Unlike(f"the precisions around {softmax.name} are mixed")
    causal = is_causal(edit, found.masks, scores)
    masks = () if causal else as_added(found.masks, dtype_of(result))
    attention = Attention(
        query, key, value, found.scale, found.temperatures, masks, causal, batch, result, mixing.order_of_result
    )
    if not all(map(same, _result_shape(attention), shape_of(result))):
        raise Unlike(f"the shape of {result.name} is not that of attention")
    return attention


def _is_turned(softmax: Node) -> bool:
    """Whether a softmax runs over the last dimension but one: scores are k q' then."""
    rank, dimension = len(shape_of(softmax)), softmax.args[1]
    if rank < 2 or not isinstance(dimension, int) or dimension % rank < rank - 2:
        raise Unlike(f"{softmax.name} runs over dimension {dimension}, not over the last")
    return dimension % rank == rank - 2


def _fit(found: Scores, scores: Sequence[Any]) -> bool:
    """Whether masks and temperatures broadcast to scores of this shape."""
    factors = (shape_of(node) for _, node in found.temperatures)
    return all(mask_fits(shape_of(mask.node), scores) for mask in found.masks) and all(
        batch_fits(sizes, (*scores[:-2], 1, 1)) for sizes in factors
    )


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


def _is_finer(softmax: Node, result: Node) -> bool:
    """Whether the softmax is computed in a precision that neither the result has nor float32 reaches."""
    return dtype_of(softmax) not in (dtype_of(result), torch.float32)


def _downward(softmax: Node, is_turned: bool) -> tuple[Node, Operands]:
    """From a softmax to the product with the values; on the way one transpose, where the scores are turned."""
    node = softmax
    while True:
        used = uses(node)
        if len(used) != 1:
            raise Unlike(f"the probabilities {softmax.name} are used elsewhere too")
        after = used[0]
        if passes(after) and after.args[0] is node:
            node = after
            continue
        if is_turned and _turns(after):
            node, is_turned = after, False
            continue
        operands = two_operands(after)
        if is_turned:
            raise Unlike(f"{softmax.name} runs over the queries, not over the last dimension")
        if operands is None or operands.first != Operand.of(node):
            raise Unlike(f"the probabilities {softmax.name} are not multiplied by values")
        return after, operands


def _turns(node: Node) -> bool:
    """Whether a node exchanges the last two dimensions."""
    rank = len(shape_of(node))
    return permutation(node) == (*range(rank - 2), rank - 1, rank - 2)
