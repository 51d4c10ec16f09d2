"""Computes the insides of a model's blocks again in the backward pass, so that they need not be kept."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from vivace.core.errors import NotApplicable, UsageError
from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.training.job import Training
from vivace.core.training.rig import Rig
from vivace.core.work import Work
from vivace.techniques.batch_norms import taking_statistics

KEEPS = ("inputs", "products")
_PRODUCTS = frozenset(
    getattr(torch.ops.aten, name).default
    for name in (
        "mm", "addmm", "bmm", "baddbmm", "convolution", "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention", "_scaled_dot_product_flash_attention_for_cpu",
    )
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ActivationCheckpointing(Technique):
    """Of each block only what `keep` says stays in memory until the backward pass, which computes the rest again.

    With "inputs" that is what each block received: the least memory, for about a third more arithmetic. With "products"
    results of matrix products, convolutions and attention stay too, and only cheap operators run twice. Blocks are the
    parts of the longest list of modules in the model that have parts of their own, such as a transformer's layers.
    Dropout draws the same masks again. Raises NotApplicable for a model without such a list, and for blocks with batch
    normalization, whose statistics would count every batch twice. It saves memory and costs time, so a search does not
    try it by itself.

    Source: Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016 (arXiv:1604.06174); selective: Korthikanti
    et al., Reducing Activation Recomputation in Large Transformer Models, MLSys 2023 (arXiv:2205.05198).

    >>> str(ActivationCheckpointing("products"))
    'activation-checkpointing(keep=products)'
    """

    keep: str = "inputs"

    stage = Stage.MEMORY
    family = Family.SYSTEM
    effect = Effect.EXACT
    needs = frozenset({Fact.TRAINING})
    source = "Chen et al., 2016, arXiv:1604.06174; Korthikanti et al., MLSys 2023, arXiv:2205.05198"

    def __post_init__(self) -> None:
        if self.keep not in KEEPS:
            raise UsageError(f"activation-checkpointing received keep={self.keep!r}; allowed are {', '.join(KEEPS)}")

    @classmethod
    def variants(cls, work: Work, machine: Machine) -> Iterator[Technique]:
        """None by itself: it saves memory, not time."""
        return iter(())

    def equip(self, rig: Rig, job: Training) -> Rig:
        """The rig whose model computes its blocks twice."""
        blocks = blocks_of(rig.model)
        if not blocks:
            raise NotApplicable("the model has no list of blocks (nn.ModuleList or nn.Sequential of composite modules)")
        for name, block in blocks:
            if taking_statistics(block):
                raise NotApplicable(f"{name} has batch normalization, whose statistics would count every batch twice")
        for _, block in blocks:
            block.forward = _again(block.forward, self.keep)
        return rig.replace(recomputes=True)


def blocks_of(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The composite parts of the model's longest list of modules, by name; of equally long ones, of the largest.

    >>> [name for name, _ in blocks_of(nn.Sequential(*(nn.Sequential(nn.Linear(2, 2), nn.ReLU()) for _ in range(2))))]
    ['0', '1']
    """
    found: list[tuple[str, nn.Module]] = []
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList | nn.Sequential):
            parts = module.named_children()
            mine = [(f"{name}.{number}".lstrip("."), part) for number, part in parts if next(part.children(), None)]
            found = mine if (len(mine), _size(mine)) > (len(found), _size(found)) else found
    return found


def _size(blocks: list[tuple[str, nn.Module]]) -> int:
    return sum(parameter.numel() for _, block in blocks for parameter in block.parameters())


def _again(forward: Callable[..., Any], keep: str) -> Callable[..., Any]:
    chosen: dict[str, Any] = {"use_reentrant": False}
    if keep == "products":
        chosen["context_fn"] = functools.partial(create_selective_checkpoint_contexts, _policy)

    @functools.wraps(forward)
    def block(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, **chosen, **kwargs)

    return block


def _policy(context: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operator in _PRODUCTS else CheckpointPolicy.PREFER_RECOMPUTE
