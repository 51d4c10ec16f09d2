"""Operators that add elements up, and the losses that do: sums, means, largest elements, likelihoods."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.fx import Node

from vivace.codegen.arrays import FLOAT, LONG, Array, Index, Order, Read, Shape, Value, stored
from vivace.codegen.lowering import Lowering, converted, kind_of, shape_of
from vivace.codegen.statements import SIMD, Statement, rows_of, walked
from vivace.core.errors import NotApplicable

SUM = ("0", "a + x", "+")
"""How elements are put together: what it begins with, the next `a` from `a` and an element `x`, and OpenMP's word for
that (`threads.HEAD` declares two: its own largest one loses what is not a number)."""
MANY, WIDEST = 32, 4096
"""So many lines are added up by parts, for each addition rounds by the size of its sum; of lines up to this length."""
PRODUCT, ANY, ALL = ("1", "a * x", "*"), ("0", "a || x", "||"), ("1", "a && x", "&&")
LARGEST = ("-__builtin_inff()", "x > a || x != x ? x : a", "larger")
SMALLEST = ("__builtin_inff()", "x < a || x != x ? x : a", "smaller")


def total(lowering: Lowering, node: Node, value: Value, dims: Any = None, keepdim: bool = False, **_: Any) -> Value:
    """Summed along some axes, or all."""
    return reduced(lowering, node, value, dims, SUM)


def mean(lowering: Lowering, node: Node, value: Value, dims: Any = None, keepdim: bool = False, **_: Any) -> Value:
    """The mean along some axes, or all."""
    added = reduced(lowering, node, value, dims, SUM)
    return lowering.formula("mul", [added, added.size / max(1, value.size)], shape_of(node), FLOAT)


def largest(lowering: Lowering, node: Node, value: Value, dims: Any = (), keepdim: bool = False) -> Value:
    """The largest elements along some axes, or all."""
    return reduced(lowering, node, value, dims or None, LARGEST)


def smallest(lowering: Lowering, node: Node, value: Value, dims: Any = (), keepdim: bool = False) -> Value:
    """The smallest ones."""
    return reduced(lowering, node, value, dims or None, SMALLEST)


def multiplied(lowering: Lowering, node: Node, value: Value, dim: Any = None, keepdim: bool = False, **_: Any) -> Value:
    """prod: multiplied along an axis, or all."""
    return reduced(lowering, node, value, dim, PRODUCT)


def is_any(lowering: Lowering, node: Node, value: Value, dims: Any = None, keepdim: bool = False) -> Value:
    """any: whether one of them is true, or not zero."""
    return reduced(lowering, node, value, dims, ANY)


def are_all(lowering: Lowering, node: Node, value: Value, dims: Any = None, keepdim: bool = False) -> Value:
    """all: whether each is."""
    return reduced(lowering, node, value, dims, ALL)


def variance_and_mean(
    lowering: Lowering, node: Node, value: Value, dims: Any = None, correction: Any = 1, keepdim: bool = False
) -> list[Value]:
    """var_mean: both along some axes, or all."""
    shape = tuple(int(size) for size in node.meta["val"][0].shape)
    kept, *arrays = _moments(lowering, value, dims, correction)
    return [stored(_spread(one, shape, kept, FLOAT)) for one in arrays]


def variance(
    lowering: Lowering, node: Node, value: Value, dims: Any = None, correction: Any = 1, keepdim: bool = False
) -> Value:
    """var: without the mean. Of all elements it is told in the axes' place whether it is corrected."""
    dims, correction = (None, dims) if isinstance(dims, bool) else (dims, correction)
    kept, spread, _ = _moments(lowering, value, dims, correction)
    return stored(_spread(spread, shape_of(node), kept, FLOAT))


def _moments(lowering: Lowering, value: Value, dims: Any, correction: Any) -> tuple[list[int], Array, Array]:
    """The axes that stay, the variance and the mean along the others, which is subtracted before anything is squared.
    `correction` may be a number, whether it is one, or nothing, which is one."""
    rank = len(value.shape)
    gone = {dim % rank for dim in (range(rank) if dims is None else [dims] if isinstance(dims, int) else dims)}
    kept = [place for place in range(rank) if place not in gone]
    middle = _mean_of(lowering, value, kept, value)

    def mean_at(index: Index) -> Index:
        return tuple(index[place] for place in kept)

    def deviation(index: Index) -> str:
        return f"({value.at(index)} - {middle.at(mean_at(index))})"

    squares = Value(
        value.shape, FLOAT, lambda i: f"{deviation(i)} * {deviation(i)}",
        lambda i: (*value.reads(i), middle.read(mean_at(i))),
    )  # fmt: skip
    return kept, _mean_of(lowering, squares, kept, value, 1 if correction is None else correction), middle


def accumulated(lowering: Lowering, node: Node, value: Value, dim: int, **_: Any) -> Value:
    """cumsum: along an axis each element with all before it."""
    return _with_all_before(lowering, node, value, dim, "+", 0)


def powers(lowering: Lowering, node: Node, value: Value, dim: int, **_: Any) -> Value:
    """cumprod: multiplied by all before it."""
    return _with_all_before(lowering, node, value, dim, "*", 1)


def _with_all_before(lowering: Lowering, node: Node, value: Value, dim: int, sign: str, begin: int) -> Value:
    array, axis = lowering.room(shape_of(node), kind_of(node)), dim % max(1, len(value.shape))
    index = array.index
    if index[axis : axis + 1] in ((), ("0",)):
        return converted(value, kind_of(node))
    before = (*index[:axis], f"({index[axis]} - 1)", *index[axis + 1 :])
    each = f"{array.at(index)} = ({index[axis]} > 0 ? {array.at(before)} : {begin}) {sign} {value.at(index)};"
    text = f"{' '.join(walked(array)).replace(SIMD, '')} {each}"
    if array.outer == axis:
        text = f"  if (t == 0) {{ const long from = 0, to = {array.shape[axis]}; {text} }}"
        made = Statement(text, tuple(Read(one.name, None) for one in value.reads(index)), (Read(array.name, None),))
    else:
        assert array.outer is not None
        text = f"  {{ {rows_of(array.shape[array.outer], lowering.threads)} {text} }}"
        made = Statement(text, value.reads(index), (array.divided(),))
    lowering.statements.append(made)
    return stored(array)


def _mean_of(lowering: Lowering, value: Value, kept: Sequence[int], whole: Value, correction: float = 0) -> Array:
    array = lowering.room(tuple(value.shape[place] for place in kept), FLOAT, _left(value, kept))
    lowering.statements.append(_reduction(array, value, kept, SUM, lowering.threads))
    count = whole.size / max(1, math.prod(array.shape)) - correction
    share = 1 / count if count > 0 else math.nan
    return lowering.stored(lowering.formula("mul", [stored(array), share], array.shape, FLOAT))


def reduced(lowering: Lowering, node: Node, value: Value, dims: Any, how: tuple[str, str, str]) -> Value:
    """A value's elements put together along some axes."""
    kind, rank = kind_of(node), len(value.shape)
    chosen = range(rank) if dims is None or dims == [] else ([dims] if isinstance(dims, int) else dims)
    gone = {dim % rank for dim in chosen} if rank else set()
    if not gone:
        return converted(value, kind)
    kept = [place for place in range(rank) if place not in gone]
    array = lowering.room(tuple(value.shape[place] for place in kept), kind, _left(value, kept))
    lowering.statements.append(_reduction(array, value, kept, how, lowering.threads))
    return stored(_spread(array, shape_of(node), kept, kind))


def _left(value: Value, kept: Sequence[int]) -> Order:
    """How what stays of a value should lie."""
    return tuple(kept.index(place) for place in value.layout if place in kept)


def _spread(array: Array, shape: Shape, kept: Sequence[int], kind: str) -> Array:
    """An array with axes of length one where there were longer ones, if the shape has them."""
    if len(shape) == len(array.shape):
        return Array(array.name, shape, array.strides, kind)
    steps = dict(zip(kept, array.strides, strict=True))
    return Array(array.name, shape, tuple(steps.get(place, 0) for place in range(len(shape))), kind)


def _reduction(array: Array, value: Value, kept: Sequence[int], how: tuple[str, str, str], threads: int) -> Statement:
    """An array's elements, each put together from a value's along the axes that are not kept."""
    rank = len(value.shape)
    names = dict(zip(kept, array.index, strict=True))
    index = tuple(names.get(place, f"r{place}" if value.shape[place] > 1 else "0") for place in range(rank))
    long = [place for place in value.layout if value.shape[place] > 1]
    gone = [place for place in long if place not in kept]
    write = _whole_lines if long and long[-1] in kept else _one_by_one
    body = write(array, value, value.at(index), gone, how)
    reads = value.reads(index)
    if array.outer is None:
        return Statement(f"  if (t == 0) {body}", reads, (Read(array.name, None),))
    return Statement(f"  {{ {rows_of(array.shape[array.outer], threads)}\n    {body} }}", reads, (array.divided(),))


def _whole_lines(array: Array, value: Value, text: str, gone: Sequence[int], how: tuple[str, str, str]) -> str:
    """Where the innermost axis stays, its lines are put together one after the other."""
    begin, add, _ = how
    *outside, line = walked(array)
    to = array.at(array.index)
    each = f"{{ const {array.kind} x = {text}, a = $TO; $TO = {add}; }}"
    head = f"{' '.join(outside)} {{ {line} {to} = {begin};\n      "
    innermost = [axis for axis in array.order if array.shape[axis] > 1][-1]
    count, length = value.shape[gone[-1]] if gone else 1, array.shape[innermost]
    if how != SUM or array.kind != FLOAT or count < MANY or length > WIDEST:
        return f"{head}{_gone(gone, value.shape)}{line} {each.replace('$TO', to)} }}"
    *others, last = gone
    several, own = math.isqrt(count), f"part[{array.index[innermost]}]"
    end = f"MIN(block + {several}, {count})"
    return (
        f"{head}{_gone(others, value.shape)}for (long block = 0; block < {count}; block += {several}) {{\n"
        f"      float part[{length}]; {line} {own} = 0;\n"
        f"      for (long r{last} = block; r{last} < {end}; r{last}++) {line} {each.replace('$TO', own)}\n"
        f"      {line} {to} += {own}; }} }}"
    )


def _one_by_one(array: Array, value: Value, text: str, gone: Sequence[int], how: tuple[str, str, str]) -> str:
    begin, add, clause = how
    to = array.at(array.index)
    outside = " ".join(walked(array)).replace(SIMD, "")
    if not gone:
        return f"{outside} {{ const {array.kind} a = {begin}, x = {text}; {to} = {add}; }}"
    *others, last = gone
    simd = f'_Pragma("omp simd reduction({clause}:a)") '
    line = f"for (long r{last} = 0; r{last} < {value.shape[last]}; r{last}++)"
    each = f"{{ const {array.kind} x = {text}; a = {add}; }}"
    head = _gone(others, value.shape)
    return f"{outside} {{ {array.kind} a = {begin};\n      {head}{simd}{line} {each}\n      {to} = a; }}"


def _gone(places: Sequence[int], shape: Shape) -> str:
    return "".join(f"for (long r{place} = 0; r{place} < {shape[place]}; r{place}++) " for place in places)


NONE, MEAN = 0, 1
"""PyTorch's numbers for what a loss does with those of samples; else it sums them."""


def likelihood(
    lowering: Lowering, node: Node, scores: Value, target: Value, weight: Any, how: int, ignored: int
) -> list[Value]:
    """nll_loss_forward: the scores of the classes that were asked for, and how many count."""
    where = _classes(lowering, scores, target, weight)
    count = _added(lowering, Value(target.shape, LONG, lambda i: f"({where.at(i)} != {ignored})", where.reads))
    picked = Value(
        target.shape, FLOAT,
        lambda i: f"({where.at(i)} == {ignored} ? 0.0f : -({scores.at((*i, inside(where.at(i), scores.shape[1])))}))",
        lambda i: (*where.reads(i), *scores.reads((*i, "0"))),
    )  # fmt: skip
    counted = Value((), FLOAT, lambda i: f"(float)({count.at(())})", count.reads)
    if how == NONE:
        return [stored(lowering.stored(picked)), counted]
    added = _added(lowering, picked)
    shared = Value(
        (), FLOAT, lambda i: f"({added.at(())} / (float)({count.at(())}))", lambda i: (*added.reads(i), *count.reads(i))
    )
    return [stored(lowering.stored(shared if how == MEAN else added)), counted]


def likelihood_backward(
    lowering: Lowering, node: Node, gradient: Value, scores: Value, target: Value, weight: Any, how: int, ignored: int,
    counted: Value,
) -> Value:  # fmt: skip
    """nll_loss_backward: minus one, or its share, for the classes that were asked for."""
    where = _classes(lowering, scores, target, weight)

    def at(index: Index) -> str:
        row = index[:1]
        one = gradient.at(row if how == NONE else ())
        one = f"({one} / {counted.at(())})" if how == MEAN else one
        return f"(({where.at(row)} == {index[1]} && {where.at(row)} != {ignored}) ? -{one} : 0.0f)"

    def reads(index: Index) -> tuple[Read, ...]:
        row = index[:1]
        return (*where.reads(row), *gradient.reads(row if how == NONE else ()), *counted.reads(()))

    return Value(scores.shape, FLOAT, at, reads)


def inside(index: str, size: int) -> str:
    """An index that comes from data; where it is outside of its axis, the first element is read and the fault told."""
    return f"INSIDE({index}, {size})"


def _classes(lowering: Lowering, scores: Value, target: Value, weight: Any) -> Value:
    if weight is not None or len(scores.shape) != 2:
        raise NotApplicable("there is no C for a likelihood with weights of classes, or of anything but rows of scores")
    return stored(lowering.stored(target))


def _added(lowering: Lowering, value: Value) -> Value:
    """The sum of all elements."""
    array = lowering.room((), value.kind)
    lowering.statements.append(_reduction(array, value, [], SUM, lowering.threads))
    return stored(array)


def embedding(lowering: Lowering, node: Node, table: Value, numbers: Value, *_: Any) -> Value:
    """Rows of a table."""
    where = stored(lowering.stored(numbers))
    return Value(
        shape_of(node), FLOAT, lambda i: table.at((inside(where.at(i[:-1]), table.shape[0]), i[-1])),
        lambda i: (*where.reads(i[:-1]), *table.reads(("0", i[-1]))),
    )  # fmt: skip


def embedding_backward(
    lowering: Lowering, node: Node, gradient: Value, numbers: Value, rows: int, padding: int, by_frequency: bool
) -> Value:
    """embedding_dense_backward: each row of a table, what the places that it was read at are given, added up."""
    if by_frequency:
        raise NotApplicable("there is no C for gradients of an embedding that are scaled by frequency")
    given, where = lowering.stored(gradient), lowering.stored(numbers)
    table = lowering.room(shape_of(node))
    width = table.shape[1]
    index = tuple(f"r{place}" if size != 1 else "0" for place, size in enumerate(where.shape))
    walk = _gone([place for place, size in enumerate(where.shape) if size != 1], where.shape)
    line = f"{SIMD}for (long e = from; e < to; e++)"
    text = (
        f"  {{ {rows_of(width, lowering.threads)}\n"
        f"    for (long r = 0; r < {rows}; r++) {line} {table.name}[r*{width} + e] = 0.0f;\n"
        f"    {walk} {{ const long row = {inside(where.at(index), rows)}; if (row != {padding})\n"
        f"      {line} {table.name}[row*{width} + e] += {given.at((*index, 'e'))}; }} }}"
    )
    reads = (Read(given.name, None), Read(where.name, None))
    lowering.statements.append(Statement(text, reads, (Read(table.name, None),)))
    return stored(table)


SUMS: Mapping[str, Callable[..., Any]] = {
    "sum": total, "mean": mean, "amax": largest, "amin": smallest, "prod": multiplied, "any": is_any,
    "all": are_all, "var_mean": variance_and_mean, "var": variance,
    "nll_loss_forward": likelihood, "cumsum": accumulated, "cumprod": powers,
    "nll_loss_backward": likelihood_backward, "embedding": embedding,
    "embedding_dense_backward": embedding_backward,
}  # fmt: skip
"""By the operator's name."""
