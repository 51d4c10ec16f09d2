"""Functions of single elements, and sums that may become a part of the product before them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from torch.fx import Node

from vivace.codegen.arrays import FLOAT, Value, stored
from vivace.codegen.lowering import converted, kind_of, shape_of
from vivace.codegen.operators.walk import OPERATORS
from vivace.codegen.panels import Ending
from vivace.core.errors import NotApplicable
from vivace.runtimes.native.lowering import Program, Waiting


def relu(program: Program, node: Node, value: Value) -> Value:
    """Nothing below zero; a part of the product before it."""
    if isinstance(value, Waiting) and value.ending.most is None:
        return dataclasses.replace(value, ending=dataclasses.replace(value.ending, relu=True))
    made = program.formula("relu", [program.written(value)], shape_of(node), kind_of(node))
    array = program.stored(made)
    program.nonnegative.add(array.name)
    return stored(array)


def add(program: Program, node: Node, one: Any, other: Any, alpha: float = 1) -> Value:
    """A sum; a part of the product before it where the other side lies as the product will."""
    if alpha == 1:
        for product, beside in ((one, other), (other, one)):
            found = _with(program, product, beside, shape_of(node))
            if found is not None:
                return found
    made: Value = OPERATORS["add"](program, node, program.written(one), program.written(other), alpha=alpha)
    return made


def _with(program: Program, product: Any, beside: Any, shape: tuple[int, ...]) -> Value | None:
    if not isinstance(product, Waiting) or not isinstance(beside, Value) or isinstance(beside, Waiting):
        return None
    if product.ending != Ending() or beside.shape != shape or product.shape != shape:
        return None
    if beside.array is None:
        return None
    order = product.order or tuple(range(len(shape)))
    sizes = [shape[axis] for axis in order]
    line = program.vector.whole(sizes[-1])
    steps, step = {order[-1]: 1}, line
    for axis in reversed(order[:-1]):
        steps[axis] = step
        step *= shape[axis]
    array = beside.array
    lies = all(array.strides[axis] == steps[axis] or shape[axis] == 1 for axis in range(len(shape)))
    whole = array.name in program.scratch and program.scratch[array.name][1] >= step and array.offset == 0
    if not lies or not whole or array.kind != FLOAT:
        return None
    return dataclasses.replace(product, ending=dataclasses.replace(product.ending, add=array))


def gelu(program: Program, node: Node, value: Value, approximate: str = "none") -> Value:
    """x by the share of a normal distribution below it."""
    name = "gelu" if approximate == "none" else "gelu_tanh"
    return program.formula(name, [value], shape_of(node), kind_of(node))


def dropout(program: Program, node: Node, value: Value, share: float, train: bool) -> Value:
    """Nothing, in evaluation."""
    if train and share:
        raise NotApplicable("the model drops elements at random; put it in eval mode")
    return value


def clamp(program: Program, node: Node, value: Value, low: Any = None, high: Any = None) -> Value:
    """clamp, hardtanh: between two numbers."""
    low, high = None if low == -math.inf else low, None if high == math.inf else high
    fits = low == 0 and (high is None or (isinstance(high, int | float) and high >= 0))
    if isinstance(value, Waiting) and fits and value.ending.most is None:
        return dataclasses.replace(value, ending=dataclasses.replace(value.ending, relu=True, most=high))
    value, shape, kind = program.written(value), shape_of(node), kind_of(node)
    if low is not None:
        value = program.formula("maximum" if kind != FLOAT else "at_least", [value, low], shape, kind)
    if high is not None:
        value = program.formula("minimum" if kind != FLOAT else "at_most", [value, high], shape, kind)
    made = program.stored(value)
    if isinstance(low, int | float) and low >= 0 and (high is None or (isinstance(high, int | float) and high >= 0)):
        program.nonnegative.add(made.name)
    return stored(made)


def hardtanh(program: Program, node: Node, value: Value, low: float = -1.0, high: float = 1.0) -> Value:
    """Between two numbers."""
    return clamp(program, node, value, low, high)


def relu6(program: Program, node: Node, value: Value) -> Value:
    """Between zero and six."""
    return clamp(program, node, value, 0.0, 6.0)


def silu(program: Program, node: Node, value: Value) -> Value:
    """x by its logistic function."""
    return program.formula("silu", [value], shape_of(node), kind_of(node))


def convert(program: Program, node: Node, value: Value, *_: Any, **__: Any) -> Value:
    """Another kind of number."""
    return converted(value, kind_of(node))


def contiguous(program: Program, node: Node, value: Value, *_: Any, **__: Any) -> Value:
    """The same: how tensors lie is chosen here."""
    return value


ACTIVATIONS: Mapping[str, Callable[..., Any]] = {
    "relu": relu, "add": add, "gelu": gelu, "silu": silu, "dropout": dropout, "feature_dropout": dropout,
    "clamp": clamp, "hardtanh": hardtanh, "relu6": relu6, "contiguous": contiguous, "to": convert,
}  # fmt: skip
"""By the operator's name."""
