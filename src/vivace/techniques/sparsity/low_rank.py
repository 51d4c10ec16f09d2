"""Linear layers as the product of two thinner ones, from the largest singular values of their weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch.fx import Node

from vivace.core.cost import Cost
from vivace.core.errors import NotApplicable, UsageError
from vivace.core.facts import Fact
from vivace.core.layer import StoredWeight, stored_after
from vivace.core.machine import Machine
from vivace.core.program import Model
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.work import Work
from vivace.techniques.graph import GraphEdit, torch_program
from vivace.techniques.sparsity.stored import bytes_of, stored_weight

aten = torch.ops.aten
MOST_FLOPS = 0.8
"""The share of a layer's flops that its two factors may cost: a second product is launched, and reads again."""


@dataclasses.dataclass(frozen=True)
class LowRank(Technique):
    """Linear layers y = x W' + b as y = (x B') A' + b, with W ~ A B of the rank that keeps enough of the weights.

    With the singular values s of W [outputs, inputs], the rank r is the smallest with
    sum(s[:r]^2) >= energy * sum(s^2); A = U[:, :r] sqrt(s) and B = sqrt(s) V'[:r], computed in float64 rounded once.
    By Eckart and Young no matrix of that rank is closer to W. A layer is replaced only where r (outputs + inputs) is at
    most 0.8 of outputs * inputs, so where flops and bytes really fall. Layers that the user named (`keep`) stay whole:
    one of the factors would be a layer that nobody named. Raises NotApplicable when no layer is of so low a rank, as
    trained ones often are not; UsageError unless 0 < energy < 1.

    Source: Eckart and Young, Psychometrika 1, 1936; Denton et al., Exploiting Linear Structure Within Convolutional
    Networks for Efficient Evaluation, NeurIPS 2014 (arXiv:1404.0736), section 3.

    >>> str(LowRank(energy=0.99))
    'low-rank(energy=0.99)'
    """

    energy: float = 0.95

    stage = Stage.SPARSITY
    family = Family.ALGORITHM
    effect = Effect.CHANGED
    needs = frozenset({Fact.TORCH_GRAPH, Fact.HAS_LINEAR, Fact.FLOAT32, Fact.UNQUANTIZED, Fact.UNCOMPILED})
    gives = frozenset({Fact.PRUNED})
    source = "Eckart and Young 1936; Denton et al., NeurIPS 2014, arXiv:1404.0736"

    def __post_init__(self) -> None:
        if not 0 < self.energy < 1:
            raise UsageError(f"low-rank received energy={self.energy!r}; allowed are shares between 0 and 1, as 0.95")

    @classmethod
    def variants(cls, work: Work, machine: Machine) -> Iterator[Technique]:
        """What keeps answers closest first."""
        yield cls(energy=0.99)
        yield cls(energy=0.95)

    def rewrite(self, cost: Cost) -> Cost:
        """A guess for layers that have the rank: four fifths of their flops and bytes, and some products more."""
        return cost.replace(
            flops=cost.flops * 0.8, weight_bytes=cost.weight_bytes * 0.8, operators=cost.operators * 5 // 4
        )

    def apply(self, model: Model, work: Work) -> Model:
        """The model with the layers that are of low rank in two factors."""
        edit = GraphEdit(torch_program(model))
        kept: dict[str, tuple[Node, Node] | None] = {}
        stored: list[StoredWeight] = []
        for node in edit.calls(aten.linear.default):
            weight = edit.weight(node.args[1])
            if weight is None or weight.dtype is not torch.float32 or node.name in work.keep:
                continue
            assert isinstance(node.args[1], Node)
            name = node.args[1].name
            is_new = name not in kept
            if is_new:
                kept[name] = self._stored(edit, name, weight)
            if _replace(edit, node, kept[name]) and is_new:
                stored.append(_told(edit, node, weight, kept[name]))
        if not stored:
            raise NotApplicable(
                f"no linear layer keeps {self.energy:.0%} of its weights' energy in a rank that saves work"
            )
        return model.replace(
            program=edit.close(),
            lineage=(*model.lineage, str(self)),
            stored_weights=stored_after(model.stored_weights, stored),
        )

    def _stored(self, edit: GraphEdit, name: str, weight: torch.Tensor) -> tuple[Node, Node] | None:
        """The two factors as weights of the program, or None where they would not save work."""
        found = factors(weight, self.energy)
        if found is None:
            return None
        outer, inner = found
        return edit.add_weight(f"{name}_outer", outer), edit.add_weight(f"{name}_inner", inner)


def factors(weight: torch.Tensor, energy: float) -> tuple[torch.Tensor, torch.Tensor] | None:
    """A [outputs, rank] and B [rank, inputs] with A B near the weights; None where they would not save work.

    >>> outer, inner = factors(torch.ones(8, 8), 0.99)
    >>> tuple(outer.shape), tuple(inner.shape)
    ((8, 1), (1, 8))
    """
    u, s, v = torch.linalg.svd(weight.double(), full_matrices=False)
    squares = (s * s).cumsum(0)
    if squares[-1] == 0:
        return None
    rank = int((squares < energy * squares[-1]).sum()) + 1
    if rank * sum(weight.shape) > MOST_FLOPS * weight.numel():
        return None
    root = s[:rank].sqrt()
    outer, inner = u[:, :rank] * root, root[:, None] * v[:rank]
    return outer.to(weight.dtype).contiguous(), inner.to(weight.dtype).contiguous()


def _told(edit: GraphEdit, node: Node, weight: torch.Tensor, pair: tuple[Node, Node] | None) -> StoredWeight:
    """What is stored for a layer's weight now."""
    assert pair is not None
    outer, inner = (edit.weight(factor) for factor in pair)
    assert inner is not None
    return stored_weight(node, f"rank {len(inner)}", bytes_of(weight), bytes_of(outer, inner))


def _replace(edit: GraphEdit, node: Node, pair: tuple[Node, Node] | None) -> bool:
    if pair is None:
        return False
    outer, inner = pair
    with edit.graph.inserting_before(node):
        thin = edit.graph.call_function(aten.linear.default, (node.args[0], inner))
        thin.meta = dict(node.meta)  # it belongs to the same module
        edit.infer(thin)
    node.args = (thin, outer, *node.args[2:])
    return True
