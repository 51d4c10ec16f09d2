"""Reads the recorded operators of a step, and writes them down as statements in C."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node

from vivace.core.errors import NotApplicable
from vivace.training.native.arrays import (
    BOOL,
    FLOAT,
    LONG,
    Array,
    Index,
    Read,
    Shape,
    Value,
    broadcast,
    constant,
    dense,
    stored,
)
from vivace.training.native.elementwise import FORMULAS, formula, number
from vivace.training.native.products import INT, SHORT, Product, Tile, paired, rounded, statement
from vivace.training.native.statements import Statement, loop, rows_of
from vivace.training.native.tiles import Vector

KINDS = {torch.float32: FLOAT, torch.bfloat16: FLOAT, torch.int64: LONG, torch.bool: BOOL}


class Lowering:
    """The statements of a graph. `inputs` are the arrays that its placeholders stand for, in their order."""

    def __init__(
        self, graph: GraphModule, inputs: Sequence[Array], weights: frozenset[str], vector: Vector, threads: int
    ):
        self.statements: list[Statement] = []
        self.scratch: dict[str, tuple[str, int]] = {}
        self.tiles: set[Tile] = set()
        self._weights = weights
        self._vector = vector
        self._threads = threads
        self._prepared: dict[Any, Array] = {}
        self._values: dict[Node, Any] = {}
        placeholders = [node for node in graph.graph.nodes if node.op == "placeholder"]
        self._values |= {node: stored(array) for node, array in zip(placeholders, inputs, strict=True)}
        output = next(node for node in graph.graph.nodes if node.op == "output")
        for node in graph.graph.nodes:
            if node.op == "call_function":
                self._values[node] = self._lowered(node)
            elif node.op not in ("placeholder", "output"):
                raise NotApplicable(f"the step reads {node.target}, which is neither the model's nor the batch's")
        self.outputs: list[Value] = [self._values[node] for node in output.args[0]]

    def stored(self, value: Value) -> Array:
        """Where a value lies; it is written down now if it does not yet lie anywhere."""
        if value.array is not None:
            return value.array
        array = self.room(value.shape, value.kind)
        index = tuple(f"i{place}" for place in range(len(value.shape)))
        self.statements.append(loop(array, value.at(index), value.reads(index), self._threads))
        return array

    def room(self, shape: Shape, kind: str = FLOAT) -> Array:
        """A new array."""
        name = f"w{len(self.scratch)}"
        self.scratch[name] = (kind, max(1, math.prod(shape)))
        return Array.whole(name, shape, kind)

    def _lowered(self, node: Node) -> Any:
        target = node.target
        arguments = [self._given(one) for one in node.args]
        options = {key: self._given(one) for key, one in node.kwargs.items()}
        if target is operator.getitem:
            return arguments[0][arguments[1]]
        name = getattr(target, "overloadpacket", target).__name__ if hasattr(target, "overloadpacket") else str(target)
        found = node.meta.get("val")
        if name in FORMULAS:
            value = self._formula(name, arguments, _shape(node), _kind(node))
        else:
            make: Callable[..., Any] | None = getattr(self, f"op_{name.strip(chr(95))}", None)
            if make is None:
                raise NotApplicable(f"there is no C for the operator {target}")
            value = make(node, *arguments, **options)
        if not isinstance(found, torch.Tensor) or not isinstance(value, Value):
            return value
        is_shared = len(node.users) > 1 and value.array is None and value.size > 0
        is_free = value.array is not None or not value.reads(tuple("0" for _ in value.shape))
        return stored(self.stored(value)) if is_shared and not is_free else value

    def _given(self, argument: Any) -> Any:
        if isinstance(argument, Node):
            return self._values[argument]
        if isinstance(argument, list | tuple):
            return [self._given(one) for one in argument]
        return argument

    # ---- element by element

    def _formula(self, name: str, operands: Sequence[Any], shape: Shape, kind: str) -> Value:
        if name in ("add", "sub") and len(operands) > 2:
            raise NotApplicable(f"there is no C for {name} with more than two operands")
        settled = [self._settled(one, math.prod(shape)) for one in operands]
        return formula(name, settled, shape, kind)

    def _settled(self, operand: Any, size: int) -> Any:
        """An operand; one that is costly and stretched to more elements is computed once."""
        if isinstance(operand, Value) and operand.array is None and operand.is_costly and operand.size < size:
            return stored(self.stored(operand))
        return operand

    def op_add(self, node: Node, one: Any, other: Any, alpha: float = 1) -> Value:
        return self._weighted("plus", node, one, other, alpha)

    def op_sub(self, node: Node, one: Any, other: Any, alpha: float = 1) -> Value:
        return self._weighted("minus", node, one, other, alpha)

    def _weighted(self, name: str, node: Node, one: Any, other: Any, alpha: float) -> Value:
        if alpha != 1:
            other = self._formula("mul", [other, alpha], _shape(node) if isinstance(other, Value) else (), _kind(node))
        return self._formula(name, [one, other], _shape(node), _kind(node))

    def op_full(self, node: Node, size: Any, fill: Any, **_: Any) -> Value:
        return constant(number(fill, _kind(node)), _shape(node), _kind(node))

    def op_full_like(self, node: Node, like: Any, fill: Any, **_: Any) -> Value:
        return constant(number(fill, _kind(node)), _shape(node), _kind(node))

    def op_scalar_tensor(self, node: Node, fill: Any, **_: Any) -> Value:
        return constant(number(fill, _kind(node)), (), _kind(node))

    def op_zeros_like(self, node: Node, *_: Any, **__: Any) -> Value:
        return constant(number(0, _kind(node)), _shape(node), _kind(node))

    def op_ones_like(self, node: Node, *_: Any, **__: Any) -> Value:
        return constant(number(1, _kind(node)), _shape(node), _kind(node))

    op_zeros = op_empty_like = op_new_zeros = op_zeros_like
    op_ones = op_ones_like

    def op_copy(self, node: Node, to: Value, source: Value, *_: Any) -> Value:
        if to.array is not None:
            raise NotApplicable("the step writes into a buffer of the model")
        return self.op_to_copy(node, source)

    def op_to_copy(self, node: Node, value: Value, **_: Any) -> Value:
        kind = _kind(node)
        if kind == value.kind:
            return value
        return Value(
            value.shape, kind, lambda index: f"({kind})({value.at(index)})", value.reads, None, value.is_costly
        )

    def op_clone(self, node: Node, value: Value, **_: Any) -> Value:
        return value

    def op_alias(self, node: Node, value: Value) -> Value:
        return value

    op_detach = op_lift_fresh_copy = op_alias

    # ---- other indices

    def _moved(
        self, value: Value, shape: Shape, strides: Callable[[Array], tuple[Shape, int]], to: Callable[[Index], Index]
    ) -> Value:
        """The same elements under other indices: `to` gives the old index, `strides` what an array becomes."""
        if value.array is not None:
            steps, offset = strides(value.array)
            return stored(Array(value.array.name, shape, steps, value.kind, offset))
        return Value(shape, value.kind, lambda i: value.at(to(i)), lambda i: value.reads(to(i)), None, value.is_costly)

    def op_permute(self, node: Node, value: Value, dims: Sequence[int]) -> Value:
        order = [dim % len(value.shape) for dim in dims]

        def back(index: Index) -> Index:
            return tuple(index[order.index(place)] for place in range(len(order)))

        shape = tuple(value.shape[dim] for dim in order)
        return self._moved(value, shape, lambda a: (tuple(a.strides[dim] for dim in order), a.offset), back)

    def op_transpose(self, node: Node, value: Value, one: int, other: int) -> Value:
        order = list(range(len(value.shape)))
        order[one], order[other] = order[other], order[one]
        return self.op_permute(node, value, order)

    def op_t(self, node: Node, value: Value) -> Value:
        return self.op_transpose(node, value, 0, 1) if len(value.shape) == 2 else value

    def op_expand(self, node: Node, value: Value, *_: Any, **__: Any) -> Value:
        shape, given = _shape(node), self._settled(value, math.prod(_shape(node)))
        more = len(shape) - len(given.shape)

        def stretched(array: Array) -> tuple[Shape, int]:
            own = zip(array.strides, array.shape, shape[more:], strict=True)
            return (0,) * more + tuple(0 if old == 1 and new != 1 else s for s, old, new in own), array.offset

        return self._moved(given, shape, stretched, lambda index: broadcast(given, index))

    def op_unsqueeze(self, node: Node, value: Value, dim: int) -> Value:
        place = dim % (len(value.shape) + 1)

        def wider(array: Array) -> tuple[Shape, int]:
            return (*array.strides[:place], 0, *array.strides[place:]), array.offset

        return self._moved(value, _shape(node), wider, lambda i: (*i[:place], *i[place + 1 :]))

    def op_squeeze(self, node: Node, value: Value, dims: Any = None) -> Value:
        chosen = range(len(value.shape)) if dims is None else ([dims] if isinstance(dims, int) else dims)
        gone = {dim % len(value.shape) for dim in chosen if value.shape[dim] == 1}
        kept = [place for place in range(len(value.shape)) if place not in gone]

        def back(index: Index) -> Index:
            return tuple(index[kept.index(place)] if place in kept else "0" for place in range(len(value.shape)))

        return self._moved(value, _shape(node), lambda a: (tuple(a.strides[p] for p in kept), a.offset), back)

    def op_view(self, node: Node, value: Value, *_: Any) -> Value:
        array = self.stored(value)
        if not array.is_dense:
            array = self._copied(value)
        return stored(Array.whole(array.name, _shape(node), array.kind))

    op_reshape = op_unsafe_view = op_view

    def op_select(self, node: Node, value: Value, dim: int, at: int) -> Value:
        dim, at = dim % len(value.shape), at % value.shape[dim]

        def less(array: Array) -> tuple[Shape, int]:
            return (*array.strides[:dim], *array.strides[dim + 1 :]), array.offset + at * array.strides[dim]

        return self._moved(value, _shape(node), less, lambda i: (*i[:dim], str(at), *i[dim:]))

    def op_slice(
        self, node: Node, value: Value, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
    ) -> Value:
        dim = dim % len(value.shape)
        first = min(max((start or 0) + (value.shape[dim] if (start or 0) < 0 else 0), 0), value.shape[dim])

        def cut(array: Array) -> tuple[Shape, int]:
            steps = [s * step if place == dim else s for place, s in enumerate(array.strides)]
            return tuple(steps), array.offset + first * array.strides[dim]

        def back(index: Index) -> Index:
            return (*index[:dim], f"({index[dim]}*{step} + {first})", *index[dim + 1 :])

        return self._moved(value, _shape(node), cut, back)

    def _copied(self, value: Value) -> Array:
        """A copy, one element after the other."""
        return self.stored(Value(value.shape, value.kind, value.at, value.reads))

    # ---- sums and the like

    def op_sum(self, node: Node, value: Value, dims: Any = None, keepdim: bool = False, **_: Any) -> Value:
        return self._reduced(node, value, dims, keepdim, "0", "a + x", "+")

    def op_mean(self, node: Node, value: Value, dims: Any = None, keepdim: bool = False, **_: Any) -> Value:
        total = self._reduced(node, value, dims, keepdim, "0", "a + x", "+")
        return self._formula("mul", [total, total.size / value.size], _shape(node), FLOAT)

    def op_amax(self, node: Node, value: Value, dims: Any = (), keepdim: bool = False) -> Value:
        return self._reduced(node, value, dims or None, keepdim, "-__builtin_inff()", "x > a ? x : a", "max")

    def op_amin(self, node: Node, value: Value, dims: Any = (), keepdim: bool = False) -> Value:
        return self._reduced(node, value, dims or None, keepdim, "__builtin_inff()", "x < a ? x : a", "min")

    def _reduced(self, node: Node, value: Value, dims: Any, keepdim: bool, begin: str, add: str, how: str) -> Value:
        kind, rank = _kind(node), len(value.shape)
        chosen = range(rank) if dims is None or dims == [] else ([dims] if isinstance(dims, int) else dims)
        gone = {dim % rank for dim in chosen} if rank else set()
        if not gone:
            return self.op_to_copy(node, value)
        kept = [place for place in range(rank) if place not in gone]
        array = self.room(tuple(value.shape[place] for place in kept), kind)
        self.statements.append(_reduction(array, value, kept, (begin, add, how), self._threads))
        return stored(Array(array.name, _shape(node), dense(_shape(node)), kind))

    # ---- products

    def op_mm(self, node: Node, a: Value, b: Value) -> Value:
        return self._product(node, a, b, None)

    def op_addmm(self, node: Node, bias: Value, a: Value, b: Value, beta: float = 1, alpha: float = 1) -> Value:
        is_row = bias.array is not None and bias.shape == (b.shape[1],) and bias.array.strides == (1,)
        if is_row and beta == alpha == 1:
            return self._product(node, a, b, bias.array)
        found = self._product(node, a, b, None)
        scaled = [self._formula("mul", [one, by], _shape(node), FLOAT) for one, by in ((found, alpha), (bias, beta))]
        return self._formula("plus", scaled, _shape(node), FLOAT)

    def _product(self, node: Node, a: Value, b: Value, bias: Array | None) -> Value:
        left, right = self.stored(a), self.stored(b)
        is_narrow = node.args[-1].meta["val"].dtype is torch.bfloat16 and self._vector.has_bf16
        c = self.room(_shape(node))
        product = self._prepared_product(Product(c, left, right, bias, False, right.name in self._weights), is_narrow)
        made, tiles = statement(product, self._vector, self._threads)
        self.statements.append(made)
        self.tiles |= tiles
        return stored(c)

    def _prepared_product(self, wanted: Product, is_narrow: bool) -> Product:
        """The product with operands that lie as its micro-kernel reads them."""
        a, b = wanted.a, wanted.b
        lanes = self._vector.lanes
        if wanted.is_inner:
            if not is_narrow:
                return wanted
            turned = Array(b.name, b.shape[::-1], b.strides[::-1], b.kind, b.offset)
            left, right = self._rounded(a), self._rounded(turned)
            right = Array(right.name, right.shape[::-1], right.strides[::-1], SHORT)
            return Product(wanted.c, left, right, wanted.bias, True, wanted.weight_is_b)
        if b.strides[1] != 1 or (b.shape[1] < lanes and not is_narrow):
            b = self._side_by_side(b)
        if not is_narrow:
            return Product(wanted.c, a, b, wanted.bias, False, wanted.weight_is_b)
        pairs = self._paired(b)
        if a.strides[1] == 1:
            left = self._rounded(a)
            left = Array(left.name, (left.shape[0], pairs.shape[0]), (left.strides[0] // 2, 1), INT)
        else:
            turned = self._paired(Array(a.name, a.shape[::-1], a.strides[::-1], a.kind, a.offset))
            left = Array(turned.name, (a.shape[0], pairs.shape[0]), (1, turned.strides[0]), INT)
        return Product(wanted.c, left, pairs, wanted.bias, True, wanted.weight_is_b)

    def _side_by_side(self, b: Array) -> Array:
        """A copy of b (k, n) with its columns side by side, and room for a whole vector of them."""
        k, n = b.shape
        wide = self.room((k, max(n, self._vector.lanes)))
        to = Array(wide.name, (k, n), wide.strides)
        self.statements.append(loop(to, b.at(("i0", "i1")), (Read(b.name, None),), self._threads))
        return to

    def _rounded(self, source: Array) -> Array:
        key = ("rounded", source)
        if key not in self._prepared:
            rows, k = source.shape
            wide = -(-k // (2 * self._vector.lanes)) * 2 * self._vector.lanes
            to = self.room((rows, wide), SHORT)
            self._prepared[key] = to
            self.statements.append(rounded(source, to, self._threads))
        return self._prepared[key]

    def _paired(self, source: Array) -> Array:
        key = ("paired", source)
        if key not in self._prepared:
            k, n = source.shape
            to = self.room((-(-k // 2), max(n, self._vector.lanes)), INT)
            to = Array(to.name, (to.shape[0], n), to.strides, INT)
            self._prepared[key] = to
            self.statements.append(paired(source, to, self._threads))
        return self._prepared[key]

    # ---- losses

    def op_nll_loss_forward(
        self, node: Node, scores: Value, target: Value, weight: Any, how: int, ignored: int
    ) -> list[Value]:
        self._check_nll(scores, weight)
        rows = scores.shape[0]
        where = self._values_of_rows(target)
        count = self._total((rows,), LONG, lambda i: f"({where.at(i)} != {ignored})", where.reads)
        picked = Value(
            (rows,), FLOAT,
            lambda i: f"({where.at(i)} == {ignored} ? 0.0f : -({scores.at((*i, where.at(i)))}))",
            lambda i: (*where.reads(i), *scores.reads((*i, "0"))),
        )  # fmt: skip
        weight_of_all = Value((), FLOAT, lambda i: f"(float)({count.at(())})", count.reads)
        if how == 0:
            return [stored(self.stored(picked)), weight_of_all]
        total = self._total((rows,), FLOAT, picked.at, picked.reads)
        mean = Value(
            (),
            FLOAT,
            lambda i: f"({total.at(())} / (float)({count.at(())}))",
            lambda i: (*total.reads(i), *count.reads(i)),
        )
        return [stored(self.stored(mean if how == 1 else total)), weight_of_all]

    def op_nll_loss_backward(
        self,
        node: Node,
        gradient: Value,
        scores: Value,
        target: Value,
        weight: Any,
        how: int,
        ignored: int,
        total: Value,
    ) -> Value:
        self._check_nll(scores, weight)
        where = self._values_of_rows(target)
        share = f"({{}} / {total.at(())})" if how == 1 else "{}"

        def at(index: Index) -> str:
            row = index[:1]
            one = gradient.at(row if how == 0 else ())
            is_it = f"{where.at(row)} == {index[1]} && {where.at(row)} != {ignored}"
            return f"(({is_it}) ? -{share.format(one)} : 0.0f)"

        def reads(index: Index) -> tuple[Read, ...]:
            return (*where.reads(index[:1]), *gradient.reads(index[:1] if how == 0 else ()), *total.reads(()))

        return Value(scores.shape, FLOAT, at, reads)

    def _check_nll(self, scores: Value, weight: Any) -> None:
        if weight is not None or len(scores.shape) != 2:
            raise NotApplicable("there is no C for a likelihood with weights of classes, or of single samples")

    def _values_of_rows(self, target: Value) -> Value:
        return target if target.array is not None else stored(self.stored(target))

    def _total(
        self, shape: Shape, kind: str, at: Callable[[Index], str], reads: Callable[[Index], tuple[Read, ...]]
    ) -> Value:
        array = self.room((), kind)
        value = Value(shape, kind, at, reads)
        self.statements.append(_reduction(array, value, [], ("0", "a + x", "+"), self._threads))
        return stored(array)

    # ---- tables

    def op_embedding(self, node: Node, table: Value, numbers: Value, *_: Any) -> Value:
        where = self._values_of_rows(numbers)
        return Value(
            _shape(node), FLOAT, lambda i: table.at((where.at(i[:-1]), i[-1])),
            lambda i: (*where.reads(i[:-1]), *table.reads(("0", i[-1]))),
        )  # fmt: skip


def _reduction(array: Array, value: Value, kept: Sequence[int], how: tuple[str, str, str], threads: int) -> Statement:
    """An array's elements, each added up from a value's along the dimensions that are not kept."""
    begin, add, clause = how
    rank = len(value.shape)
    names = {place: f"i{kept.index(place)}" for place in kept}
    names |= {place: f"r{place}" for place in range(rank) if place not in kept}
    index = tuple(names[place] for place in range(rank))
    gone = [place for place in range(rank) if place not in kept]
    to = array.at(tuple(f"i{number}" for number in range(len(kept))))
    text, reads = value.at(index), value.reads(index)
    walked = "".join(f"for (long r{place} = 0; r{place} < {value.shape[place]}; r{place}++) " for place in gone)
    if kept and kept[-1] == rank - 1:  # the last one stays: whole lines are added to each other
        outer = _kept_loops(array.shape[:-1])
        first, end = ("from", "to") if len(kept) == 1 else ("0", str(array.shape[-1]))
        line = (
            f'_Pragma("omp simd") for (long i{len(kept) - 1} = {first}; i{len(kept) - 1} < {end}; i{len(kept) - 1}++)'
        )
        body = f"{{ {line} {to} = {begin};\n      {walked} {line} {{ const {array.kind} x = {text}, a = {to}; {to} = {add}; }} }}"
    else:
        outer = _kept_loops(array.shape)
        simd = f'_Pragma("omp simd reduction({clause}:a)") '
        last = gone[-1]
        head = "".join(f"for (long r{p} = 0; r{p} < {value.shape[p]}; r{p}++) " for p in gone[:-1])
        body = (
            f"{{ {array.kind} a = {begin};\n      {head}{simd}for (long r{last} = 0; r{last} < {value.shape[last]}; r{last}++) "
            f"{{ const {array.kind} x = {text}; a = {add}; }}\n      {to} = a; }}"
        )
    if not kept:
        return Statement(f"  if (t == 0) {body}", reads, (Read(array.name, None),))
    rows = array.shape[0] if array.shape[0] > 1 else None
    return Statement(f"  {{ {rows_of(array.shape[0], threads)}\n    {outer}{body} }}", reads, (Read(array.name, rows),))


def _kept_loops(shape: Sequence[int]) -> str:
    loops = ["for (long i0 = from; i0 < to; i0++) "] if shape else []
    loops += [f"for (long i{place} = 0; i{place} < {size}; i{place}++) " for place, size in enumerate(shape) if place]
    return "".join(loops)


def _shape(node: Node) -> Shape:
    return tuple(int(size) for size in node.meta["val"].shape)


def _kind(node: Node) -> str:
    dtype = node.meta["val"].dtype
    if dtype not in KINDS:
        raise NotApplicable(f"there is no C for tensors of {dtype}")
    return KINDS[dtype]
