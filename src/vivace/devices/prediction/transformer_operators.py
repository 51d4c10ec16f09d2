"""The operators of a transformer that is described and not coded: what the recorder would see, from its sizes alone."""

from __future__ import annotations

from collections.abc import Sequence

from vivace.core.prediction.work import Operator, OperatorKind, Transformer
from vivace.devices.prediction.memory import MIXED_ADAM

BYTES = 2
"""Of a number of 16 bits."""


def forward_operators(model: Transformer, batch: int) -> list[Operator]:
    """The operators of a forward pass over `batch` samples, in 16 bits: products with their weights, attention that
    keeps no scores, and what lies between."""
    tokens, width, hidden = batch * model.sequence, model.width, model.hidden
    layer = [
        _moving("norm", 2, tokens, width),
        _product("qkv", tokens, width, 3 * width),
        _attention(model, batch),
        _product("attention out", tokens, width, width),
        _moving("add", 3, tokens, width),
        _moving("norm", 2, tokens, width),
        _product("up", tokens, width, hidden),
        _moving("gelu", 2, tokens, hidden),
        _product("down", tokens, hidden, width),
        _moving("add", 3, tokens, width),
    ]
    head = [_product("head", tokens, width, model.vocabulary), _moving("loss", 3, tokens, model.vocabulary)]
    return [_moving("embedding", 2, tokens, width), *layer * model.layers, *head]


def step_operators(model: Transformer, batch: int, micro_batch: int, recompute: bool = False) -> list[Operator]:
    """The operators of an update of `batch` samples in micro-batches: each forward, twice as much backward, once more
    forward where layers are computed again, and the optimizer's."""
    forward = forward_operators(model, micro_batch)
    passes = [*forward * (2 if recompute else 1), *backward(forward)]
    states = sum(MIXED_ADAM) * model.parameters
    update = [Operator("adam", OperatorKind.OTHER, 0.0, 2.0 * states / 8)] * 8
    return [*passes * (batch // micro_batch), *update]


def backward(forward: Sequence[Operator]) -> list[Operator]:
    """The operators that compute gradients: two products for each, of weights and of inputs, twice the traffic for the
    rest."""
    found: list[Operator] = []
    for one in reversed(forward):
        if one.flops:
            found += [one, one]
        else:
            found.append(Operator(one.name, one.kind, 0.0, 2 * one.moved_bytes))
    return found


def _product(name: str, rows: int, inner: int, columns: int) -> Operator:
    moved = BYTES * (rows * inner + inner * columns + rows * columns)
    return Operator(name, OperatorKind.PRODUCT, 2.0 * rows * inner * columns, float(moved))


def _attention(model: Transformer, batch: int) -> Operator:
    tokens = batch * model.sequence
    flops = 4.0 * tokens * model.sequence * model.width
    return Operator("attention", OperatorKind.PRODUCT, flops, float(4 * BYTES * tokens * model.width))


def _moving(name: str, passes: int, rows: int, columns: int) -> Operator:
    return Operator(name, OperatorKind.OTHER, 0.0, float(passes * BYTES * rows * columns))
