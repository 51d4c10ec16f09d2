"""Softmax as graphs spell it out: exponentials over their sum, or the exponential of a logarithm of shares."""

from __future__ import annotations

from typing import Any

from torch import fx

PASSES = frozenset({"alias", "detach", "clone", "contiguous"})
SOFTMAXES = frozenset({"softmax", "_softmax"})
LOGARITHMS = frozenset({"log_softmax", "_log_softmax"})


def spelled_softmax(node: fx.Node) -> tuple[fx.Node, int] | None:
    """What a node that is no softmax gives the softmax of, and over which dimension; None where it gives none.

    Known are exp(x - c) / sum(exp(x - c)), c the largest of each row or nothing at all, exp(log_softmax(x)) and
    exp(x - logsumexp(x)). Where exp(x) alone would overflow, a softmax does not.
    """
    if _name(node) == "div" and len(node.all_input_nodes) == 2 and not node.kwargs:
        return _over_its_sum(*node.all_input_nodes)
    if _name(node) != "exp":
        return None
    inner = _source(node.args[0])
    if inner is None:
        return None
    if _name(inner) in LOGARITHMS and isinstance(inner.args[0], fx.Node) and _keeps_dtype(inner, inner.args[0]):
        return inner.args[0], _dimension(inner, inner.args[1])
    taken = _difference(inner)
    if taken is not None and _name(taken[1]) == "logsumexp" and _source(taken[1].args[0]) is _source(taken[0]):
        dimension = _kept_dimension(taken[1])
        return None if dimension is None else (taken[0], dimension)
    return None


def _over_its_sum(shares: fx.Node, total: fx.Node) -> tuple[fx.Node, int] | None:
    """Of exponentials that are divided by their sum: what they are of, and the dimension that is summed over."""
    powers, summed = _source(shares), _source(total)
    if powers is None or summed is None or _name(powers) != "exp" or _name(summed) != "sum":
        return None
    dimension = _kept_dimension(summed)
    if _source(summed.args[0]) is not powers or dimension is None or not _keeps_dtype(summed, powers):
        return None
    inner = _source(powers.args[0])
    if inner is None:
        return None
    taken = _difference(inner)
    is_shifted = taken is not None and _is_largest(taken[1], taken[0], dimension)
    return (taken[0] if taken is not None and is_shifted else inner), dimension


def _is_largest(node: fx.Node, of: fx.Node, dimension: int) -> bool:
    """Whether a node is the largest value of another one's rows, of one element each."""
    if node.op == "call_function" and getattr(node.target, "__name__", "") == "getitem" and node.args[1] == 0:
        inner = node.args[0]
        node = inner if isinstance(inner, fx.Node) and _name(inner) == "max" else node
    is_largest = _name(node) in ("amax", "max") and len(node.args) > 1
    return is_largest and _source(node.args[0]) is _source(of) and _kept_dimension(node) == dimension


def _difference(node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """What a subtraction takes from what, each by way of copies."""
    if _name(node) != "sub" or node.kwargs or len(node.args) != 2:
        return None
    first, second = map(_source, node.args)
    return None if first is None or second is None else (first, second)


def _kept_dimension(node: fx.Node) -> int | None:
    """The one dimension that a sum, a maximum or the like runs over, where it is kept with one element."""
    if len(node.args) < 3 or node.args[2] is not True:
        return None
    dimensions: Any = node.args[1]
    single = [dimensions] if isinstance(dimensions, int) else list(dimensions)
    return _dimension(node, single[0]) if len(single) == 1 else None


def _dimension(node: fx.Node, dimension: Any) -> int:
    """A dimension counted from the front."""
    value = node.meta["val"]
    rank: int = (value[0] if isinstance(value, tuple | list) else value).dim()
    return int(dimension) % max(1, rank)


def _keeps_dtype(node: fx.Node, source: fx.Node) -> bool:
    return bool(node.meta["val"].dtype == source.meta["val"].dtype)


def _source(value: Any) -> fx.Node | None:
    """A node, or that which it is a copy of; None for anything else."""
    while isinstance(value, fx.Node) and _name(value) in PASSES:
        value = value.args[0]
    return value if isinstance(value, fx.Node) else None


def _name(node: fx.Node) -> str:
    return str(getattr(node.target, "_opname", ""))
