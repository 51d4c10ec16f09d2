"""Elements picked by numbers that are computed, and values stretched like others."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.fx import Node

from vivace.codegen.arrays import LONG, Index, Read, Shape, Value, broadcast, stored
from vivace.codegen.lowering import Lowering, kind_of, shape_of
from vivace.codegen.operators import views
from vivace.codegen.operators.sums import inside
from vivace.core.errors import NotApplicable


def indexed(lowering: Lowering, node: Node, value: Value, indices: Sequence[Any]) -> Value:
    """index: the elements at numbers, for axes that follow one another."""
    source, places = stored(lowering.stored(value)), Numbers.of(lowering, node, value, indices)
    return Value(
        shape_of(node), kind_of(node), lambda i: source.at(places.at(i)),
        lambda i: (*places.reads(i), *source.reads(places.at(i))),
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Numbers:
    """What index and index_put are told: `values` hold numbers for axes of a tensor from `first` on, each as long as
    in `sizes`. In what is picked axes as in `shape` stand in their place."""

    values: Sequence[Value]
    sizes: Shape
    first: int
    shape: Shape

    @classmethod
    def of(cls, lowering: Lowering, node: Node, value: Value, indices: Sequence[Any]) -> Numbers:
        """Those of an operator. Raises NotApplicable for axes apart from each other, and for truths."""
        axes = [axis for axis, one in enumerate(indices) if one is not None]
        if axes != list(range(axes[0], axes[-1] + 1)) or any(indices[axis].kind != LONG for axis in axes):
            raise NotApplicable(f"there is no C for {node.target} but by numbers for axes that follow one another")
        values = [stored(lowering.stored(indices[axis])) for axis in axes]
        shape = tuple(torch.broadcast_shapes(*(one.shape for one in values)))  # type: ignore[no-untyped-call]
        return cls(values, value.shape[axes[0] : axes[-1] + 1], axes[0], shape)

    def at(self, index: Index) -> Index:
        """Where in the tensor an element of what is picked stands."""
        own = self._own(index)
        chosen = [
            counted(one.at(broadcast(one, own)), size) for one, size in zip(self.values, self.sizes, strict=True)
        ]  # fmt: skip
        return (*index[: self.first], *chosen, *index[self.first + len(self.shape) :])

    def reads(self, index: Index) -> tuple[Read, ...]:
        """What finding that reads."""
        own = self._own(index)
        return tuple(read for one in self.values for read in one.reads(broadcast(one, own)))

    def _own(self, index: Index) -> Index:
        return index[self.first : self.first + len(self.shape)]


def gathered(lowering: Lowering, node: Node, value: Value, dim: int, where: Value, *_: Any, **__: Any) -> Value:
    """gather: along one axis the element whose number stands at the same place."""
    axis = dim % len(value.shape)
    source, places = stored(lowering.stored(value)), stored(lowering.stored(where))

    def back(index: Index) -> Index:
        return (*index[:axis], counted(places.at(index), source.shape[axis]), *index[axis + 1 :])

    return Value(
        shape_of(node), kind_of(node), lambda i: source.at(back(i)),
        lambda i: (*places.reads(i), *source.reads(back(i))),
    )  # fmt: skip


def chosen(lowering: Lowering, node: Node, value: Value, dim: int, where: Value) -> Value:
    """index_select: along one axis the elements at numbers, or at one."""
    axis = dim % max(1, len(value.shape))
    return indexed(lowering, node, value, [None] * axis + [where if where.shape else views.wider(where, 0)])


def counted(place: str, size: int) -> str:
    """A number that may count from the end."""
    return inside(f"({place} < 0 ? {place} + {size} : {place})", size)


def rolled(lowering: Lowering, node: Node, value: Value, shifts: Any, dims: Any = ()) -> Value:
    """roll: moved along axes, what leaves at one end coming back at the other."""
    far, axes = ([one] if isinstance(one, int) else list(one) for one in (shifts, dims))
    if not axes:
        raise NotApplicable("there is no C for roll of a tensor without its axes")
    source = stored(lowering.stored(value))
    moves = {axis % len(value.shape): shift for axis, shift in zip(axes, far, strict=True)}

    def back(index: Index) -> Index:
        return tuple(
            f"(({place} + {-moves[axis] % size}) % {size})"
            if axis in moves and (size := value.shape[axis]) > 1
            else place
            for axis, place in enumerate(index)
        )

    def reads(index: Index) -> tuple[Read, ...]:
        return source.reads(tuple("0" if axis in moves else place for axis, place in enumerate(index)))

    return Value(shape_of(node), kind_of(node), lambda i: source.at(back(i)), reads)


def _signed(name: str) -> Callable[..., Value]:
    """What PyTorch calls by Python's sign for it: a & b."""

    def written(lowering: Lowering, node: Node, one: Any, other: Any) -> Value:
        return lowering.formula(name, [one, other], shape_of(node), kind_of(node))

    return written


def masked(lowering: Lowering, node: Node, value: Value, mask: Value, other: Any) -> Value:
    """masked_fill: another number where the mask is true."""
    return lowering.formula("where", [mask, other, value], shape_of(node), kind_of(node))


def stretched(lowering: Lowering, node: Node, value: Value, *_: Any, **__: Any) -> Value:
    """expand_as."""
    return views.expand(lowering, node, value)


PICKING: Mapping[str, Callable[..., Any]] = {
    "masked_fill": masked, "index": indexed, "index_select": chosen, "gather": gathered, "roll": rolled,
    "expand_as": stretched, "__and__": _signed("bitwise_and"), "__or__": _signed("bitwise_or"),
    "__xor__": _signed("bitwise_xor"),
}  # fmt: skip
"""By the operator's name."""
