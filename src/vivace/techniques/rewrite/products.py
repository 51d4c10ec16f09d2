"""Matrix products, whichever operator computes them: matmul, einsum, or one that adds a third tensor."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Node

from vivace.techniques.rewrite.operands import Operand, Operands, shape_of

aten = torch.ops.aten
PRODUCTS = (aten.matmul.default, aten.bmm.default, aten.mm.default)
SUMS = (aten.baddbmm.default, aten.addmm.default)
"""beta * input + alpha * (left @ right)"""


def two_operands(node: Node) -> Operands | None:
    """What a node multiplies, when it is a batch of matrix products of two tensors; None when it is not."""
    if node.target in PRODUCTS:
        return _plain(*node.args[:2])
    return _einsum(node) if node.target is aten.einsum.default else None


def summed_operands(node: Node) -> tuple[Operands, Any, Node, Any] | None:
    """The operands of a product to which a tensor is added, the product's factor, that tensor and its factor."""
    if node.target not in SUMS:
        return None
    term, left, right = node.args[:3]
    operands = _plain(left, right)
    if operands is None or not isinstance(term, Node):
        return None
    return operands, node.kwargs.get("alpha", 1), term, node.kwargs.get("beta", 1)


def _plain(left: Any, right: Any) -> Operands | None:
    ranks = [len(shape_of(side)) for side in (left, right) if isinstance(side, Node)]
    if len(ranks) != 2 or min(ranks) < 2:
        return None
    return Operands(Operand.of(left), Operand.of(right))


def _einsum(node: Node) -> Operands | None:
    """An einsum that is a batch of matrix products: "bqhd,bkhd->bhqk" and the like, batch first in one of the two."""
    sides = node.args[1]
    terms = _terms(str(node.args[0]).replace(" ", ""), sides) if isinstance(sides, list | tuple) else None
    if terms is None or any(len(set(term)) != len(term) for term in terms):
        return None
    left, right, result = terms
    inner = [letter for letter in left if letter in right and letter not in result]
    rows = [letter for letter in left if letter in result and letter not in right]
    columns = [letter for letter in right if letter in result and letter not in left]
    if len(inner) != 1 or len(columns) != 1 or set(result) - set(left) - set(right):
        return None
    row = result[-2] if result[-2:-1] in rows else left[-2] if left[-2:-1] in rows else ""
    batch = [letter for letter in (left if left[-2:] == row + inner[0] else result) if letter in result]
    batch = [letter for letter in batch if letter not in (row, columns[0])]
    if not row or {*batch, row, inner[0]} < set(left) or not set(right) <= {*batch, inner[0], columns[0]}:
        return None
    plain = [*batch, row, columns[0]]
    order = tuple(plain.index(letter) for letter in result)
    return Operands(
        _ordered(sides[0], left, [*batch, row, inner[0]]),  # type: ignore[index]
        _ordered(sides[1], right, [*batch, inner[0], columns[0]]),  # type: ignore[index]
        None if order == tuple(range(len(order))) else order,
    )


def _terms(equation: str, sides: Sequence[Any]) -> tuple[str, str, str] | None:
    """The letters of two sides and of their product, "..." spelled out; None where that is not what it is."""
    inputs, arrow, result = equation.partition("->")
    terms = inputs.split(",")
    if len(terms) != 2 or len(sides) != 2 or (not arrow and "..." not in inputs):
        return None
    if not arrow:
        result = "..." + "".join(sorted(letter for letter in set(inputs) - set(".,") if inputs.count(letter) == 1))
    unused = [letter for letter in string.ascii_letters if letter not in equation]
    counts = [len(shape_of(side)) - len(term.replace("...", "")) for side, term in zip(sides, terms, strict=True)]
    rest = [count if "..." in term else 0 for count, term in zip(counts, terms, strict=True)]
    if rest != counts or len(unused) < max(rest):
        return None
    letters = "".join(unused[: max(rest)])  # as in broadcasting, the last of each side stand for the same
    left, right = (
        term.replace("...", letters[len(letters) - count :]) for term, count in zip(terms, rest, strict=True)
    )
    return left, right, result.replace("...", letters)


def _ordered(node: Any, letters: str, wanted: Sequence[str]) -> Operand:
    return Operand(node, tuple(letters.index(letter) if letter in letters else None for letter in wanted))
