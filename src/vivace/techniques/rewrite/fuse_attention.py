"""Rewrites attention that a graph spells out into the one operator for which runtimes have fused kernels."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch.fx import Node

from vivace.core.cost import Cost
from vivace.core.errors import NotApplicable
from vivace.core.facts import Fact
from vivace.core.layer import Fused
from vivace.core.program import Model
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.work import Work
from vivace.runtimes.graphs.layers import names_of
from vivace.techniques.graph import GraphEdit, torch_program
from vivace.techniques.rewrite.attention import Attention, find
from vivace.techniques.rewrite.masks import Mask, Unlike
from vivace.techniques.rewrite.operands import batch_fits, same, shape_of
from vivace.techniques.rewrite.spelling import spell_plainly, swept
from vivace.techniques.rewrite.values import dtype_of

aten = torch.ops.aten
FUSED = aten.scaled_dot_product_attention.default
VIEWS = (aten.view.default, aten.reshape.default, aten.expand.default, aten.permute.default, aten.transpose.int)
KERNEL_RANK = 4
"""Fused kernels take [batch, heads, length, features]; fewer dimensions are filled up."""


@dataclasses.dataclass(frozen=True)
class FuseAttention(Technique):
    """Compute softmax(scale * q k' + mask) v by one operator, which never stores the scores.

    Found are products by matmul, bmm, einsum or one that adds a mask at once (baddbmm), a positive scale on either side
    of the mask, a temperature for each head, masks that are added or put in place of scores, grouped and single key-
    value heads; the softmax itself may be written as exponentials over their sum, or as the exponential of log_softmax,
    and operators may write into scores that nobody else reads. A mask that is causal by its values becomes a flag. Left
    alone is a softmax over another dimension, and one whose scores or probabilities have another user. Values in place
    of scores must be -1e4 or lower, and where they hide every key of a query, the answer stays as it was (but for minus
    infinity, where it was NaN): where adding cannot give that, the attention is left alone. Raises NotApplicable with
    the reason when nothing was rewritten.

    Source: Dao et al., FlashAttention, NeurIPS 2022 (arXiv:2205.14135), algorithm 1, as
    torch.nn.functional.scaled_dot_product_attention.

    >>> FuseAttention.name()
    'fuse-attention'
    """

    stage = Stage.REWRITE
    family = Family.ALGORITHM
    effect = Effect.ROUNDED
    needs = frozenset({Fact.TORCH_GRAPH, Fact.HAS_WRITTEN_ATTENTION})
    breaks = frozenset({Fact.HAS_WRITTEN_ATTENTION})
    source = "Dao et al., NeurIPS 2022, arXiv:2205.14135, algorithm 1"

    def rewrite(self, cost: Cost) -> Cost:
        """About a fifth of a transformer's operators go, and the scores, a third of what it writes."""
        return cost.replace(operators=max(1, cost.operators * 4 // 5), activation_bytes=cost.activation_bytes * 0.7)

    def apply(self, model: Model, work: Work) -> Model:
        """The model with each spelled-out attention rewritten."""
        edit = GraphEdit(torch_program(model))
        reasons: list[str] = []
        fused: list[Fused] = []
        spell_plainly(edit)
        for found in find(edit):  # lazily: an attention may read what the one before it gave
            if isinstance(found, Unlike):
                reasons.append(str(found))
            else:
                fused.append(_rewrite(edit, found))
        if not fused:
            raise NotApplicable(_why_nothing(edit, reasons))
        return model.replace(program=edit.close(), lineage=(*model.lineage, str(self)), fused=(*model.fused, *fused))


def _why_nothing(edit: GraphEdit, reasons: list[str]) -> str:
    if reasons:
        return f"no attention can be rewritten: {reasons[0]}"
    if any(edit.calls(FUSED)):
        return "its attention is scaled_dot_product_attention already"
    return "the program has no softmax, so no attention"


def _rewrite(edit: GraphEdit, attention: Attention) -> Fused:
    """Put the fused operator in place of a spelled-out attention; says whose work it does."""
    with edit.graph.inserting_before(attention.result):
        result = _Writer(edit, attention).write()
    attention.result.replace_all_uses_with(result)
    gone = swept(edit, attention.result)
    return Fused(FUSED._opname, names_of(node for node in reversed(gone) if node.target not in VIEWS))


class _Writer:
    """Writes one fused attention into a graph, shapes known at once, in the name of the modules that it replaces."""

    def __init__(self, edit: GraphEdit, attention: Attention) -> None:
        self._edit = edit
        self._attention = attention
        self._sources: list[Node] = []
        self._meta = {key: value for key, value in attention.result.meta.items() if key != "val"}

    def write(self) -> Node:
        attention = self._attention
        query, *others = (side.emit(self._call) for side in (attention.query, attention.key, attention.value))
        for operator, temperature in attention.temperatures:
            query = self._call(operator, query, temperature)
        self._sources = [query, *others, *(mask.node for mask in attention.masks)]
        query, key, value = (self._filled(self._spread(node)) for node in (query, *others))
        mask = self._mask(dtype_of(query))
        fused = self._call(FUSED, query, key, value, mask, 0.0, attention.is_causal, scale=attention.scale)
        return self._like_the_result(fused)

    def _call(self, target: Any, *args: Any, **kwargs: Any) -> Node:
        node = self._edit.graph.call_function(target, args, kwargs)
        node.meta = dict(self._meta)
        self._edit.infer(node)
        return node

    def _spread(self, node: Node) -> Node:
        """The node with all of the batch's dimensions; no copy."""
        batch = self._attention.batch
        for _ in range(len(batch) + 2 - len(shape_of(node))):
            node = self._call(aten.unsqueeze.default, node, 0)
        if all(map(same, shape_of(node), batch)):
            return node
        sizes = [
            -1 if same(have, want) else self._size(want) for have, want in zip(shape_of(node), batch, strict=False)
        ]
        return self._call(aten.expand.default, node, [*sizes, -1, -1])

    def _size(self, wanted: Any) -> Any:
        """A size as a number, or as a node that reads it off a tensor."""
        for node in self._sources:
            for place, size in enumerate(shape_of(node)):
                if same(size, wanted):
                    return self._size_of(node, place)
        if isinstance(wanted, int):
            return wanted
        raise NotApplicable(f"no tensor of the attention before {self._attention.result.name} has its batch size")

    def _size_of(self, node: Node, place: int) -> Any:
        size = shape_of(node)[place]
        return size if isinstance(size, int) else self._call(aten.sym_size.int, node, place)

    def _filled(self, node: Node) -> Node:
        for _ in range(KERNEL_RANK - len(shape_of(node))):
            node = self._call(aten.unsqueeze.default, node, 0)
        return node

    def _mask(self, dtype: torch.dtype) -> Node | None:
        """One tensor that hides what the masks do: true where one of minus infinity shows, otherwise to be added."""
        masks, found = self._attention.masks, None
        if len(masks) == 1 and masks[0].value == float("-inf"):
            mask = masks[0]
            found = self._over_the_batch(mask.node if mask.keeps else self._hidden(mask))
            found = found if mask.keeps else self._call(aten.logical_not.default, found)
        else:
            for mask in masks:
                found = self._masked(found, mask, dtype)
        return found if found is None or len(shape_of(found)) == 2 else self._filled(found)

    def _masked(self, before: Node | None, mask: Mask, dtype: torch.dtype) -> Node:
        """One more mask on those before it, as something to add to the scores, in the queries' precision."""
        if mask.value is not None:
            where = self._over_the_batch(self._hidden(mask))
            if before is None:
                before = self._call(aten.zeros_like.default, where, dtype=dtype)
            return self._call(aten.masked_fill.Scalar, before, where, mask.value)
        node = self._over_the_batch(mask.node)
        node = node if dtype_of(node) == dtype else self._call(aten.to.dtype, node, dtype)
        node = node if mask.factor == 1 else self._call(aten.mul.Tensor, node, mask.factor)
        return node if before is None else self._call(aten.add.Tensor, before, node)

    def _hidden(self, mask: Mask) -> Node:
        """Where a mask replaces scores."""
        is_bool = dtype_of(mask.node) is torch.bool
        if mask.keeps:
            return self._call(aten.logical_not.default, mask.node)
        return mask.node if is_bool else self._call(aten.ne.Scalar, mask.node, 0)

    def _over_the_batch(self, node: Node) -> Node:
        """A mask over merged batches as one over the batch's own dimensions."""
        scores = self._attention.scores
        if batch_fits(shape_of(node), scores):
            return node
        tail = [self._size_of(node, place) for place in (1, 2)]
        batch = [self._size(size) for size in scores[:-2]]
        return self._call(aten.reshape.default, node, [*batch, *tail])

    def _like_the_result(self, node: Node) -> Node:
        """Without the dimensions that were filled up, in the result's order, its batches merged if they were."""
        batch, result = self._attention.batch, self._attention.result
        for _ in range(KERNEL_RANK - len(batch) - 2):
            node = self._call(aten.squeeze.dim, node, 0)
        if self._attention.order is not None:
            return self._call(aten.permute.default, node, list(self._attention.order))
        if len(shape_of(result)) < len(shape_of(node)):
            return self._call(aten.flatten.using_ints, node, 0, len(batch) - 1)
        return node
