"""Which operator of a winner does the arithmetic of which of the original's layers. No input or output."""

from __future__ import annotations

import dataclasses
import re

from vivace.core.compute import OperatorTime, Profile

_PRODUCT = re.compile(
    r"conv(?!ert)|(?<!quantize)linear|mm$|matmul|gemm|einsum|fullyconnected|lstm|gru|rnn|attention", re.IGNORECASE
)
"""What engines call the operators that compute products."""


def with_served_flops(winner: Profile, original: Profile) -> Profile:
    """The winner's profile with the flops that the original's layers take, at the operator that does their products.

    An operator whose own products were counted keeps that count. Where several could do a layer's products, or a
    product is of no layer of the original's, it is not known: None.
    """
    flops = _flops_by_layer(original)
    takers = _takers(winner)
    return dataclasses.replace(
        winner,
        operators=tuple(
            one if one.flops else dataclasses.replace(one, flops=_served(place, one, flops, takers))
            for place, one in enumerate(winner.operators)
        ),
    )


def is_product(name: str) -> bool:
    """Whether an operator, or a node of a graph, computes products, by what it is called.

    >>> [name for name in ("QLinearConv", "DequantizeLinear", "Convert", "addmm", "FullyConnected") if is_product(name)]
    ['QLinearConv', 'addmm', 'FullyConnected']
    """
    return _PRODUCT.search(re.sub(r"_\d+$", "", name)) is not None


def _flops_by_layer(original: Profile) -> dict[str, float | None]:
    """The flops of each layer of the original; None for one that was not counted."""
    found: dict[str, float | None] = {}
    for operator in original.operators:
        for layer in operator.layers:
            before = found.get(layer, 0.0)
            found[layer] = None if before is None or operator.flops is None else before + operator.flops
    return found


def _takers(winner: Profile) -> dict[str, list[int]]:
    """The places of the operators that may do each layer's products: those that compute any, or else all of them."""
    sharers: dict[str, list[int]] = {}
    for place, operator in enumerate(winner.operators):
        for layer in operator.layers:
            sharers.setdefault(layer, []).append(place)
    return {
        layer: [place for place in places if is_product(winner.operators[place].operator)] or places
        for layer, places in sharers.items()
    }


def _served(
    place: int, operator: OperatorTime, flops: dict[str, float | None], takers: dict[str, list[int]]
) -> float | None:
    if not operator.layers:
        return None
    total, has_stranger = 0.0, False
    for layer in operator.layers:
        if layer not in flops:
            has_stranger = True
            if is_product(layer.rpartition("/")[2]):
                return None
        elif place in takers[layer]:
            asked = flops[layer]
            if asked is None or (asked and len(takers[layer]) > 1):
                return None
            total += asked
    return None if has_stranger and not total and is_product(operator.operator) else total
