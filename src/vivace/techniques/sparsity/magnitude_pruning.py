"""Zeroes the smallest weights of linear layers; the zeros are kept dense, so this alone makes nothing faster."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.fx import Node

from vivace.core.errors import NotApplicable, UsageError
from vivace.core.facts import Fact
from vivace.core.layer import ZEROS_KEPT, stored_after
from vivace.core.machine import Machine
from vivace.core.program import Model
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.work import Work
from vivace.techniques.graph import GraphEdit, torch_program
from vivace.techniques.sparsity.stored import bytes_of, stored_weight

PATTERNS = ("unstructured", "2:4", "block")
BLOCK = 16


@dataclasses.dataclass(frozen=True)
class MagnitudePruning(Technique):
    """Linear layers without their smallest weights: PRUNED BUT KEPT DENSE, so no faster and no smaller by itself.

    The share of zeros is that of each layer. `pattern` unstructured drops single weights by magnitude, 2:4 the two
    smallest of each four along the inputs (share 0.5, which a kernel of our own uses on processors, and NVIDIA's, which
    is not called here, on cards from compute capability 8.0), block whole 16 x 16 blocks by their norm. What can be
    gained is gained by `sparse-kernels` after it, and only where a sparse product was measured to be faster. Large
    shares cost quality, which `recovery` may win back. Layers with fewer than `smallest` inputs or outputs are left
    alone. Raises NotApplicable when no layer is left or all have their zeros already; UsageError for an unknown pattern
    or share.

    Source: Han et al., Learning both Weights and Connections for Efficient Neural Networks, NeurIPS 2015
    (arXiv:1506.02626), section 3; Mishra et al., Accelerating Sparse Deep Neural Networks, 2021 (arXiv:2104.08378).

    >>> str(MagnitudePruning(share=0.9))
    'magnitude-pruning(share=0.9)'
    >>> MagnitudePruning(share=0.9).told_beside([])
    'magnitude-pruning(share=0.9; pruned but kept dense)'
    """

    share: float = 0.8
    pattern: str = "unstructured"
    smallest: int = 64

    stage = Stage.SPARSITY
    family = Family.ALGORITHM
    effect = Effect.CHANGED
    needs = frozenset({Fact.TORCH_GRAPH, Fact.HAS_LINEAR, Fact.FLOAT32, Fact.UNQUANTIZED, Fact.UNCOMPILED})
    gives = frozenset({Fact.SPARSE_LINEAR, Fact.PRUNED})
    source = "Han et al., NeurIPS 2015, arXiv:1506.02626; Mishra et al. 2021, arXiv:2104.08378"

    def __post_init__(self) -> None:
        if self.pattern not in PATTERNS:
            raise UsageError(f"magnitude-pruning received pattern={self.pattern!r}; allowed are {', '.join(PATTERNS)}")
        if not 0 < self.share < 1:
            raise UsageError(f"magnitude-pruning received share={self.share!r}; allowed are shares between 0 and 1")
        if self.pattern == "2:4" and self.share != 0.5:
            raise UsageError(f"magnitude-pruning received share={self.share!r} with pattern='2:4'; allowed is 0.5")

    @classmethod
    def variants(cls, work: Work, machine: Machine) -> Iterator[Technique]:
        """Shares at which sparse products begin to win on processors: of two of each four where the vectors of our
        kernel are the processor's."""
        if machine.cxx_compiler and "avx512f" in machine.instructions:
            yield cls(share=0.5, pattern="2:4")
        yield cls(share=0.8)
        yield cls(share=0.9)

    def apply(self, model: Model, work: Work) -> Model:
        """The model with zeros in its linear layers."""
        edit = GraphEdit(torch_program(model))
        nodes = {node.args[1]: node for node in edit.calls(torch.ops.aten.linear.default)}
        pruned = [layer for weight, layer in nodes.items() if isinstance(weight, Node) and self._prune(edit, weight)]
        if not pruned:
            raise NotApplicable(
                f"no linear layer of at least {self.smallest} x {self.smallest} has weights left to prune"
            )
        stored = [stored_weight(layer, ZEROS_KEPT, *[bytes_of(edit.weight(layer.args[1]))] * 2) for layer in pruned]
        return model.replace(
            program=edit.close(),
            lineage=(*model.lineage, str(self)),
            stored_weights=stored_after(model.stored_weights, stored),
        )

    def _prune(self, edit: GraphEdit, node: Node) -> bool:
        weight = edit.weight(node)
        if weight is None or weight.dim() != 2 or min(weight.shape) < self.smallest:
            return False
        pruned = torch.where(mask(weight, self.share, self.pattern), weight, 0.0)
        if torch.equal(pruned, weight):
            return False
        edit.set_weight(node, pruned)
        return True

    def told_beside(self, others: Sequence[Technique]) -> str:
        """Its name, and that its zeros are kept dense where nothing in the plan stores them away."""
        if any(Fact.SPARSE_LINEAR in other.needs for other in others):
            return str(self)
        name = str(self).removesuffix(")")
        return f"{name}{'; ' if '(' in name else '('}pruned but kept dense)"


def mask(weight: Tensor, share: float, pattern: str) -> Tensor:
    """Which weights [outputs, inputs] stay; exactly round(share * count) weights, groups or blocks go.

    >>> mask(torch.tensor([[1.0, -4.0, 3.0, 2.0]]), 0.5, "2:4").tolist()
    [[False, True, True, False]]
    """
    if pattern == "unstructured":
        return _largest(weight.abs().flatten(), share).reshape(weight.shape)
    if pattern == "2:4":
        return _two_of_four(weight)
    outputs, inputs = weight.shape
    padded = torch.nn.functional.pad(weight, (0, -inputs % BLOCK, 0, -outputs % BLOCK))
    blocks = padded.reshape(-(-outputs // BLOCK), BLOCK, -(-inputs // BLOCK), BLOCK).square().sum((1, 3))
    kept = _largest(blocks.flatten(), share).reshape(blocks.shape)
    return kept.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)[:outputs, :inputs]


def _largest(scores: Tensor, share: float) -> Tensor:
    order = scores.argsort(stable=True)
    kept = torch.ones_like(scores, dtype=torch.bool)
    kept[order[: round(share * len(scores))]] = False
    return kept


def _two_of_four(weight: Tensor) -> Tensor:
    """The two largest of each four along the inputs; a rest of fewer than four stays whole."""
    kept = torch.ones_like(weight, dtype=torch.bool)
    whole = weight.shape[1] // 4 * 4
    groups = weight[:, :whole].abs().reshape(len(weight), -1, 4)
    smallest = groups.argsort(dim=2, stable=True)[..., :2]
    kept[:, :whole] = torch.ones_like(groups, dtype=torch.bool).scatter(2, smallest, False).flatten(1)
    return kept
