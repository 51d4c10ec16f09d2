"""The operands of a matrix product, traced back through transposes and merges."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

aten = torch.ops.aten
RESHAPES = (
    *(aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.expand.default),
    *(aten.flatten.using_ints, aten.unflatten.int),
)
COPIES = (aten.clone.default, aten.contiguous.default, aten.alias.default)


def shape_of(node: Node) -> tuple[Any, ...]:
    """The sizes of a node's value, some of them symbols; empty for what is not a tensor."""
    value = node.meta.get("val")
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def same(one: Any, other: Any) -> bool:
    """Whether two sizes are known to be equal, without assuming it."""
    if isinstance(one, int) and isinstance(other, int):
        return one == other
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return bool(statically_known_true(one == other))


def batch_fits(sizes: Sequence[Any], whole: Sequence[Any]) -> bool:
    """Whether sizes broadcast to `whole` and never beyond it.

    >>> batch_fits((1, 4), (2, 3, 4)), batch_fits((5, 4), (2, 3, 4))
    (True, False)
    """
    if len(sizes) > len(whole):
        return False
    return all(same(a, b) or same(a, 1) for a, b in zip(reversed(sizes), reversed(whole), strict=False))


def is_merge(node: Node) -> bool:
    """Whether a node changes a tensor's batch dimensions only, or copies it."""
    if node.target in COPIES:
        return True
    if node.target not in RESHAPES or not isinstance(node.args[0], Node):
        return False
    before, after = shape_of(node.args[0]), shape_of(node)
    return len(before) > 1 and len(after) > 1 and all(map(same, before[-2:], after[-2:]))


@dataclasses.dataclass(frozen=True)
class Operand:
    """A node seen with its dimensions in another order: `axes` names the node's dimension of each, None for a new 1."""

    node: Node
    axes: tuple[int | None, ...]

    @staticmethod
    def of(node: Node) -> Operand:
        """A node as it is."""
        return Operand(node, tuple(range(len(shape_of(node)))))

    @property
    def shape(self) -> tuple[Any, ...]:
        """Sizes in the operand's order."""
        sizes = shape_of(self.node)
        return tuple(1 if axis is None else sizes[axis] for axis in self.axes)

    def swapped(self) -> Operand:
        """With its last two dimensions exchanged."""
        return Operand(self.node, (*self.axes[:-2], self.axes[-1], self.axes[-2]))

    def fitted(self, batch: Sequence[Any]) -> Operand | None:
        """The operand, or what it was made of by merging batches, so that its batch broadcasts to `batch`."""
        found: Operand | None = self.untransposed()
        while found is not None and not batch_fits(found.shape[:-2], batch):
            found = found._before_merge()
        return found

    def untransposed(self) -> Operand:
        """The same, as a view of the node before its transposes."""
        order = permutation(self.node)
        if order is None:
            return self
        axes = tuple(None if axis is None else order[axis] for axis in self.axes)
        assert isinstance(self.node.args[0], Node)
        return Operand(self.node.args[0], axes).untransposed()

    def emit(self, call: Callable[..., Node]) -> Node:
        """The operand in its own order, by calls of operators: `call(operator, *arguments)` makes a node."""
        kept = [axis for axis in self.axes if axis is not None]
        node = self.node if kept == sorted(kept) else call(aten.permute.default, self.node, kept)
        for place, axis in enumerate(self.axes):
            if axis is None:
                node = call(aten.unsqueeze.default, node, place)
        return node

    def _before_merge(self) -> Operand | None:
        rank = len(shape_of(self.node))
        tail = self.axes[-2:]
        batch_as_it_is = self.axes[:-2] == tuple(range(rank - 2))
        if not batch_as_it_is or set(tail) != {rank - 2, rank - 1} or not is_merge(self.node):
            return None
        source = self.node.args[0]
        assert isinstance(source, Node)
        inner = len(shape_of(source))
        moved = tuple(inner - rank + axis for axis in tail if axis is not None)
        return Operand(source, (*range(inner - 2), *moved)).untransposed()


@dataclasses.dataclass(frozen=True)
class Operands:
    """The two operands of a product: [*batch, M, K] and [*batch, K, N].

    `order_of_result`: the dimension of [*batch, M, N] that each dimension of the result is, where it is not the same.
    """

    first: Operand
    second: Operand
    order_of_result: tuple[int, ...] | None = None


def permutation(node: Node) -> tuple[int, ...] | None:
    """For a transpose, the source's dimension of each of its dimensions."""
    rank = len(shape_of(node))
    order = list(range(rank))
    if node.target is aten.permute.default:
        axes: Any = node.args[1]
        return tuple(axis % rank for axis in axes)
    if node.target is aten.transpose.int:
        one, other = (int(axis) % rank for axis in node.args[1:3])  # type: ignore[arg-type]
    elif node.target in (aten.mT.default, aten.t.default, aten.numpy_T.default) and rank == 2:
        one, other = 0, 1
    elif node.target is aten.mT.default:
        one, other = rank - 2, rank - 1
    else:
        return None
    order[one], order[other] = order[other], order[one]
    return tuple(order)
