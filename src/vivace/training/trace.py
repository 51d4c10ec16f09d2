"""What one step makes of a batch, tensor by tensor and in float64: gradients, updates, buffers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from vivace.core.training.rig import Rig
from vivace.training.rig import seed_everything
from vivace.training.step import around, train_step


@dataclasses.dataclass(frozen=True)
class Trace:
    """One step by the names of the model's tensors. A gradient is None where the loss gave that parameter none."""

    loss: float
    gradients: Mapping[str, Tensor | None]
    updates: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]


def trace(rig: Rig, batch: Any, seed: int, take: Callable[[], Tensor] | None = None) -> Trace:
    """Take one step, by `take` where that is given, with every generator set to `seed` before; what it changed."""
    learning = {name: value for name, value in rig.model.named_parameters() if value.requires_grad}
    before = there(_wide(rig, learning))
    seed_everything(seed)
    with around(rig.outside):
        loss = train_step(rig, batch) if take is None else take()
    after = there(_wide(rig, learning))
    kept = {name: value for name, value in rig.model.named_buffers() if value.is_floating_point()}
    return Trace(
        loss=float(loss),
        gradients=_wide(rig, {name: value.grad for name, value in learning.items()}),
        updates={name: after[name] - value for name, value in before.items()},
        buffers=there(_wide(rig, kept)),
    )


def updated_by(rig: Rig, state: Mapping[str, Tensor], made: Trace) -> dict[str, Tensor]:
    """What a rig's own next update makes of weights and of the gradients of a step that somebody else has taken."""
    rig.model.load_state_dict(state)
    learning = {name: value for name, value in rig.model.named_parameters() if value.requires_grad}
    before = {name: wide(value) for name, value in learning.items()}
    for name, value in learning.items():
        given = made.gradients.get(name)
        value.grad = None if given is None else given.to(value, copy=True)
    with around(rig.outside):
        rig.update()
    return {name: wide(value) - before[name] for name, value in learning.items()}


def _wide(rig: Rig, tensors: Mapping[str, Tensor | None]) -> dict[str, Tensor | None]:
    """Copies in float64 on the CPU, whole where processes hold parts."""
    whole = tensors if rig.ranks is None else rig.ranks.whole(tensors)
    return {name: None if (value := whole[name]) is None else wide(value) for name in tensors}


def there(tensors: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
    """Those that are not None."""
    return {name: value for name, value in tensors.items() if value is not None}


def wide(tensor: Tensor) -> Tensor:
    """A copy in float64 on the CPU."""
    return tensor.detach().to("cpu", torch.float64, copy=True)


def widened(batch: Any) -> Any:
    """A batch with its floating-point tensors in float64."""
    return pytree.tree_map(
        lambda leaf: leaf.double() if torch.is_tensor(leaf) and leaf.is_floating_point() else leaf, batch
    )


def stilled(model: torch.nn.Module) -> list[tuple[torch.nn.Module, str, float]]:
    """Switch a model's dropout off, so that steps of two rigs can be compared; what was switched off, and from what.

    Masks are drawn anew by compilers and in other precisions, so the same seed does not give the same ones.
    """
    found: list[tuple[torch.nn.Module, str, float]] = []
    for module in model.modules():
        for name in ("p", "dropout", "rate"):  # the last is Keras'
            value = getattr(module, name, None)
            is_dropout = name == "dropout" or "Dropout" in type(module).__name__
            if is_dropout and isinstance(value, float) and value > 0:
                setattr(module, name, 0.0)
                found.append((module, name, value))
    return found
