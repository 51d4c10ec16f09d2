"""Which linear layers can be computed in parts: pairs with nothing but element-wise operations between."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from vivace.distributed.world import World

ELEMENTWISE = frozenset(
    {
        "ReluBackward0", "GeluBackward0", "SiluBackward0", "SigmoidBackward0", "TanhBackward0", "LeakyReluBackward0",
        "EluBackward0", "HardtanhBackward0", "HardswishBackward0", "SoftplusBackward0", "MishBackward0",
        "MulBackward0", "PowBackward0", "NegBackward0", "LogSigmoidBackward0", "HardsigmoidBackward0",
    }
)  # fmt: skip
"""Backward nodes of operations whose result at a place depends on their operands at that place alone."""


@dataclasses.dataclass(frozen=True)
class Pair:
    """Layers whose outputs are split (`first`, one or, with a gate, two) and the one whose inputs are (`second`)."""

    first: tuple[str, ...]
    second: str
    width: int

    def __str__(self) -> str:
        return f"{' and '.join(self.first)} with {self.second} ({self.width})"


@dataclasses.dataclass
class _Seen:
    """A linear layer as it was called."""

    name: str
    layer: nn.Linear
    given: Tensor
    gave: Tensor


def linear_pairs(model: nn.Module, loss_of: Callable[[nn.Module], Tensor]) -> list[Pair]:
    """The pairs of a model, by following what its loss is computed from, backward from each linear layer to others.

    Between them may be element-wise operations and products with another such branch; nobody else may use what is
    between, and no dropout, whose masks would be drawn for parts. A layer that is called twice, or that another one
    shares a parameter with, is in no pair.

    Source: Shoeybi et al., Megatron-LM, 2019 (arXiv:1909.08053), section 3.
    """
    seen: list[_Seen] = []
    dropped: list[Tensor] = []
    hooks = [module.register_forward_hook(_noting(name, seen, dropped)) for name, module in model.named_modules()]
    try:
        loss = loss_of(model)
    finally:
        for hook in hooks:
            hook.remove()
    calls, whole = Counter(one.name for one in seen), holders(model)
    seen = [one for one in seen if calls[one.name] == 1 and all(whole[id(own)] == 1 for own in one.layer.parameters())]
    by_output = {one.gave.grad_fn: one for one in seen if one.gave.grad_fn is not None}
    uses = _uses(loss.grad_fn)
    masked = {tensor.grad_fn for tensor in dropped}
    taken: set[str] = set()
    found: list[Pair] = []
    for one in seen:
        if one.name in taken or one.given.grad_fn is None:
            continue
        firsts = _branch(one.given.grad_fn, by_output, uses, masked)
        if not firsts or any(first.name in taken or first.layer.out_features != one.layer.in_features
                             for first in firsts):  # fmt: skip
            continue
        pair = Pair(tuple(first.name for first in firsts), one.name, one.layer.in_features)
        taken |= {*pair.first, pair.second}
        found.append(pair)
    return found


def holders(model: nn.Module) -> Counter[int]:
    """How many modules hold each parameter of a model, by its `id`: two hold a weight that is tied."""
    return Counter(id(one) for _, one in model.named_parameters(remove_duplicate=False))


def split_pairs(model: nn.Module, pairs: list[Pair], world: World) -> None:
    """Let each process along the axis `tensor` hold and compute its part of these pairs."""
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    plan: dict[str, Any] = {}
    for pair in pairs:
        plan |= {name: ColwiseParallel() for name in pair.first}
        plan[pair.second] = RowwiseParallel()
    parallelize_module(model, world.mesh["tensor"], plan)


def _noting(name: str, seen: list[_Seen], dropped: list[Tensor]) -> Callable[..., None]:
    def note(module: nn.Module, given: Any, gave: Any) -> None:
        if type(module) is nn.Linear and given and torch.is_tensor(given[0]) and torch.is_tensor(gave):
            seen.append(_Seen(name, module, given[0], gave))
        is_dropout = isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0
        if is_dropout and torch.is_tensor(gave):
            dropped.append(gave)

    return note


def _uses(root: Any) -> Counter[Any]:
    """How many operations use what each backward node stands for."""
    found: Counter[Any] = Counter()
    waiting, known = [root], {root}
    while waiting:
        for following, _ in waiting.pop().next_functions:
            if following is None:
                continue
            found[following] += 1
            if following not in known:
                known.add(following)
                waiting.append(following)
    return found


def _branch(node: Any, by_output: dict[Any, _Seen], uses: Counter[Any], masked: set[Any]) -> list[_Seen]:
    """The linear layers that an operand comes from by element-wise operations alone; none where it does not."""
    if uses[node] != 1 or node in masked:
        return []
    if node in by_output:
        return [by_output[node]]
    if node.name() not in ELEMENTWISE:
        return []
    found: list[_Seen] = []
    for following in _operands(node):
        branch = _branch(following, by_output, uses, masked)
        if not branch:
            return []
        found += branch
    return found


def _operands(node: Any) -> Iterator[Any]:
    return (following for following, _ in node.next_functions if following is not None)
