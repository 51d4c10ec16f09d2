"""Adder graphs: a product with constants as shifts and additions, with sums that several outputs need made once.

Weights are written in canonical signed digits, so that zero weights cost nothing and 7 costs one subtraction (8 - 1).
Then the pair of terms that most outputs share, with their relative shift and sign, becomes a sum of its own, again and
again, while any pair is shared. Source: Hartley, Subexpression Sharing in Filters Using Canonic Signed Digit
Multipliers, IEEE Transactions on Circuits and Systems II 43, 1996.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections import Counter
from collections.abc import Iterable

import numpy as np

from vivace.hardware.graph.integer import Array


@dataclasses.dataclass(frozen=True, order=True)
class Term:
    """sign * (node << shift), of a sum."""

    node: int
    shift: int
    sign: int


@dataclasses.dataclass(frozen=True)
class Adder:
    """One addition of two terms; its value is that of node number inputs + its place. `depth` counts additions."""

    first: Term
    second: Term
    depth: int


@dataclasses.dataclass(frozen=True)
class AdderGraph:
    """`inputs` nodes, then one node for each adder. `outputs` has a term for each output, None where it is always 0.

    `plain_adders` is how many there would be without sharing.
    """

    inputs: int
    adders: tuple[Adder, ...]
    outputs: tuple[Term | None, ...]
    plain_adders: int

    @property
    def depth(self) -> int:
        """Additions one after the other."""
        return max((adder.depth for adder in self.adders), default=0)

    def run(self, x: Array) -> Array:
        """What the outputs are for inputs [samples, inputs], by the adders alone."""
        nodes = list(x.T)
        for adder in self.adders:
            nodes.append(_worth(nodes, adder.first) + _worth(nodes, adder.second))
        nothing = np.zeros(len(x), np.int64)
        return np.stack([nothing if term is None else _worth(nodes, term) for term in self.outputs], axis=1)


def adder_graph(weight: Array) -> AdderGraph:
    """The adders of a matrix [outputs, inputs] of integers.

    >>> graph = adder_graph(np.array([[1, 1, 0], [1, 1, 4]]))
    >>> len(graph.adders), graph.plain_adders
    (2, 3)
    """
    sums = [_terms(row) for row in weight.tolist()]
    plain = sum(max(0, len(one) - 1) for one in sums)
    adders: list[Adder] = []
    _share(sums, weight.shape[1], adders)
    depths = [0] * weight.shape[1] + [adder.depth for adder in adders]
    outputs = [_tree(one, depths, adders, weight.shape[1]) for one in sums]
    return AdderGraph(weight.shape[1], tuple(adders), tuple(outputs), plain)


def signed_digits(number: int) -> list[tuple[int, int]]:
    """(shift, sign) of the digits of a number in canonical signed form: no two neighbours are both non-zero.

    >>> signed_digits(7), signed_digits(-5)
    ([(0, -1), (3, 1)], [(0, -1), (2, -1)])
    """
    digits, shift = [], 0
    while number:
        if number & 1:
            digit = 2 - (number & 3)
            digits.append((shift, digit))
            number -= digit
        number >>= 1
        shift += 1
    return digits


def _terms(row: Iterable[int]) -> set[Term]:
    return {Term(node, shift, sign) for node, number in enumerate(row) for shift, sign in signed_digits(number)}


Pair = tuple[int, int, int, int]
"""Two nodes, how much further the second is shifted than the first, and whether their signs are equal."""


def _pair(one: Term, other: Term) -> Pair:
    first, second = (one, other) if one <= other else (other, one)
    return first.node, second.node, second.shift - first.shift, first.sign * second.sign


def _share(sums: list[set[Term]], inputs: int, adders: list[Adder]) -> None:
    """Give pairs that occur twice or more nodes of their own, the most frequent first."""
    counts: Counter[Pair] = Counter()
    for one in sums:
        counts.update(_pairs(sorted(one)))
    heap = [(-count, pair) for pair, count in counts.items() if count > 1]
    heapq.heapify(heap)
    depths = [0] * inputs
    while heap:
        count, pair = heapq.heappop(heap)
        if counts[pair] != -count:
            if counts[pair] > 1:
                heapq.heappush(heap, (-counts[pair], pair))
            continue
        found = [(one, matches) for one in sums if (matches := _matches(one, pair))]
        if sum(len(matches) for _, matches in found) < 2:
            counts[pair] = 0
            continue
        first, second, shift, sign = pair
        low = min(0, shift)
        adder = Adder(Term(first, -low, 1), Term(second, shift - low, sign), max(depths[first], depths[second]) + 1)
        node = len(depths)
        depths.append(adder.depth)
        adders.append(adder)
        for one, matches in found:
            for base, partner in matches:
                changed = _replace(one, (base, partner), Term(node, base.shift + low, base.sign), counts)
                for raised in changed:
                    if counts[raised] > 1:
                        heapq.heappush(heap, (-counts[raised], raised))


def _pairs(terms: list[Term]) -> Iterable[Pair]:
    return (_pair(one, other) for place, one in enumerate(terms) for other in terms[place + 1 :])


def _matches(terms: set[Term], pair: Pair) -> list[tuple[Term, Term]]:
    """Where a sum holds a pair, no term twice."""
    first, second, shift, sign = pair
    used: set[Term] = set()
    found = []
    for one in sorted(terms):
        if one.node != first or one in used:
            continue
        other = Term(second, one.shift + shift, one.sign * sign)
        if other in terms and other not in used and other != one and _pair(one, other) == pair:
            used |= {one, other}
            found.append((one, other))
    return found


def _replace(terms: set[Term], old: tuple[Term, Term], new: Term, counts: Counter[Pair]) -> list[Pair]:
    """Exchange two terms of a sum for one, and keep count; returns the pairs that became more frequent."""
    for term in old:
        terms.discard(term)
        for other in terms:
            counts[_pair(term, other)] -= 1
    counts[_pair(*old)] -= 1
    raised = []
    for other in terms:
        pair = _pair(new, other)
        counts[pair] += 1
        raised.append(pair)
    terms.add(new)
    return raised


def _tree(terms: set[Term], depths: list[int], adders: list[Adder], inputs: int) -> Term | None:
    """Add up what is left of a sum, the shallowest terms first."""
    heap = [(depths[term.node], term) for term in sorted(terms)]
    heapq.heapify(heap)
    while len(heap) > 1:
        (one_depth, one), (other_depth, other) = heapq.heappop(heap), heapq.heappop(heap)
        low = min(one.shift, other.shift)
        adder = Adder(
            Term(one.node, one.shift - low, one.sign),
            Term(other.node, other.shift - low, other.sign),
            max(one_depth, other_depth) + 1,
        )
        depths.append(adder.depth)
        adders.append(adder)
        heapq.heappush(heap, (adder.depth, Term(inputs + len(adders) - 1, low, 1)))
    return heap[0][1] if heap else None


def _worth(nodes: list[Array], term: Term) -> Array:
    return term.sign * (nodes[term.node] << term.shift)
