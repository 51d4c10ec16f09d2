"""Elements picked by numbers that are computed, and values stretched like others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.fx import Node

from vivace.codegen import views
from vivace.codegen.arrays import LONG, Index, Read, Value, broadcast, stored
from vivace.codegen.lowering import kind_of, shape_of
from vivace.codegen.sums import inside
from vivace.core.errors import NotApplicable
from vivace.runtimes.native.lowering import Program


def indexed(program: Program, node: Node, value: Value, indices: Sequence[Any]) -> Value:
    """index: the elements at numbers, for axes that follow one another."""
    axes = [axis for axis, one in enumerate(indices) if one is not None]
    if axes != list(range(axes[0], axes[-1] + 1)) or any(one.kind != LONG for one in indices if one is not None):
        raise NotApplicable(f"there is no C for {node.target} but by numbers for axes that follow one another")
    source = stored(program.stored(value))
    places = [stored(program.stored(indices[axis])) for axis in axes]
    shape = shape_of(node)
    rank = len(shape) - (len(source.shape) - len(axes))
    first = axes[0]

    def back(index: Index) -> Index:
        own = index[first : first + rank]
        chosen = [
            _inside(place.at(broadcast(place, own)), source.shape[axis])
            for place, axis in zip(places, axes, strict=True)
        ]  # fmt: skip
        return (*index[:first], *chosen, *index[first + rank :])

    def reads(index: Index) -> tuple[Read, ...]:
        own = index[first : first + rank]
        found = [read for place in places for read in place.reads(broadcast(place, own))]
        return (*found, *source.reads(back(index)))

    return Value(shape, kind_of(node), lambda i: source.at(back(i)), reads)


def gathered(program: Program, node: Node, value: Value, dim: int, where: Value, *_: Any, **__: Any) -> Value:
    """gather: along one axis the element whose number stands at the same place."""
    axis = dim % len(value.shape)
    source, places = stored(program.stored(value)), stored(program.stored(where))

    def back(index: Index) -> Index:
        return (*index[:axis], _inside(places.at(index), source.shape[axis]), *index[axis + 1 :])

    return Value(
        shape_of(node), kind_of(node), lambda i: source.at(back(i)),
        lambda i: (*places.reads(i), *source.reads(back(i))),
    )  # fmt: skip


def _inside(place: str, size: int) -> str:
    """A number that may count from the end."""
    return inside(f"({place} < 0 ? {place} + {size} : {place})", size)


def both(program: Program, node: Node, one: Any, other: Any) -> Value:
    """a & b of truths."""
    if kind_of(node) != "bool":
        raise NotApplicable(f"there is no C for {node.target} of numbers")
    return program.formula("logical_and", [one, other], shape_of(node), kind_of(node))


def stretched(program: Program, node: Node, value: Value, *_: Any, **__: Any) -> Value:
    """expand_as."""
    return views.expand(program, node, value)


PICKING: Mapping[str, Callable[..., Any]] = {
    "index": indexed, "gather": gathered, "__and__": both, "expand_as": stretched,
}  # fmt: skip
"""By the operator's name."""
