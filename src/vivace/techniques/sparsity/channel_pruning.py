"""Takes whole channels out of convolutions and linear layers: really smaller tensors, on any engine."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from vivace.core.cost import Cost
from vivace.core.errors import NotApplicable, UsageError
from vivace.core.facts import Fact
from vivace.core.layer import stored_after
from vivace.core.machine import Machine
from vivace.core.program import Model
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.work import Work
from vivace.runtimes.graphs.layers import is_product
from vivace.techniques.graph import GraphEdit, torch_program
from vivace.techniques.sparsity.channel_groups import Group, groups_of
from vivace.techniques.sparsity.stored import bytes_of, stored_weight

MULTIPLE = 8
"""Channels that stay are a multiple of it, as vector kernels like them."""


@dataclasses.dataclass(frozen=True)
class ChannelPruning(Technique):
    """Convolutions and linear layers with at most a `share` of their channels taken out, and the layers after them.

    A channel goes with everything that depends on it: the layer's filter and bias, batch normalization, the same
    channel of whatever is added to it (residual sums), depthwise filters, and the inputs of the next layers, also
    behind pooling and flattening. Channels that reach an answer, a normalization over channels, attention or any other
    operator stay. Those go whose weights have the least norm, each tensor scaled to a mean of 1 (DepGraph's group
    norm). What stays is a multiple of 8. Groups of fewer than `smallest` channels are left alone. Large
    shares cost quality, which `recovery` may win back. Raises NotApplicable when nothing can go; UsageError unless
    0 < share < 1.

    Source: Fang et al., DepGraph: Towards Any Structural Pruning, CVPR 2023 (arXiv:2301.12900), sections 3.2 and 3.3;
    Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017 (arXiv:1608.08710).

    >>> ChannelPruning(share=0.5).rewrite(Cost(1e9, 4e6, 4e6, 100)).flops
    250000000.0
    """

    share: float = 0.25
    smallest: int = 48

    stage = Stage.SPARSITY
    family = Family.ALGORITHM
    effect = Effect.CHANGED
    needs = frozenset({Fact.TORCH_GRAPH, Fact.FLOAT32, Fact.UNQUANTIZED, Fact.UNCOMPILED})
    gives = frozenset({Fact.PRUNED})
    source = "Fang et al., CVPR 2023, arXiv:2301.12900; Li et al., ICLR 2017, arXiv:1608.08710"

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise UsageError(f"channel-pruning received share={self.share!r}; allowed are shares between 0 and 1")

    @classmethod
    def variants(cls, work: Work, machine: Machine) -> Iterator[Technique]:
        """A little, and more."""
        yield cls(share=0.125)
        yield cls(share=0.25)
        yield cls(share=0.5)

    def rewrite(self, cost: Cost) -> Cost:
        """Inputs and outputs of a layer shrink: its work by the square of what stays."""
        kept = 1 - self.share
        return cost.replace(
            flops=cost.flops * kept**2,
            weight_bytes=cost.weight_bytes * kept**2,
            activation_bytes=cost.activation_bytes * kept,
        )

    def apply(self, model: Model, work: Work) -> Model:
        """The model with fewer channels."""
        edit = GraphEdit(torch_program(model))
        groups = [group for group in groups_of(edit) if group.is_free and self._kept(group) < group.channels]
        if not groups:
            raise NotApplicable(
                f"no layer has {self.smallest} channels or more of which some can go; those that reach an answer, a "
                "normalization over channels or attention must stay"
            )
        layers = {node.args[1]: node for node in edit.graph.nodes if is_product(node)}
        before = {weight: bytes_of(edit.weight(weight)) for weight in layers}
        for group in groups:
            _shrink(edit, group, self._kept(group))
        after = {weight: bytes_of(edit.weight(weight)) for weight in layers}
        stored = [
            stored_weight(node, "fewer channels", before[weight], after[weight])
            for weight, node in layers.items()
            if after[weight] < before[weight]
        ]
        return model.replace(
            program=edit.close(),
            lineage=(*model.lineage, str(self)),
            stored_weights=stored_after(model.stored_weights, stored),
        )

    def _kept(self, group: Group) -> int:
        if group.channels < self.smallest:
            return group.channels
        return min(group.channels, MULTIPLE * math.ceil(group.channels * (1 - self.share) / MULTIPLE))


def _shrink(edit: GraphEdit, group: Group, count: int) -> None:
    kept = importance(edit, group).argsort(descending=True, stable=True)[:count].sort().values
    for node, dimension, repeat in group.slices:
        value = edit.weight(node)
        assert value is not None
        index = (kept[:, None] * repeat + torch.arange(repeat)).flatten()
        edit.set_weight(node, value.index_select(dimension, index).contiguous())
    for view, repeat in group.shapes:
        sizes = list(view.args[1])  # type: ignore[arg-type]
        view.args = (view.args[0], [sizes[0], count * repeat])
    for node in group.depthwise:
        node.args = (*node.args[:6], count)


def importance(edit: GraphEdit, group: Group) -> Tensor:
    """One score a channel: the sum over the group's matrices of the channel's squared norm, each with a mean of 1."""
    total = torch.zeros(group.channels, dtype=torch.float64)
    for node, dimension, repeat in group.slices:
        value = edit.weight(node)
        assert value is not None
        if value.dim() > 1:
            squares = value.double().square().movedim(dimension, 0).reshape(group.channels, repeat, -1).sum((1, 2))
            total += squares / squares.mean().clamp_min(1e-30)
    return total
