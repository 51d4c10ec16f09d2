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
    """One step by the names of the model's tensors. A gradient is None where the loss gave that parameter none.

    `sparse` are gradients of few rows as they came. Of complex tensors both parts are there, in a last axis. `frozen`
    says by how much parameters moved that do not learn, as a norm, `counts` what was added to buffers of whole numbers.
    """

    loss: float
    gradients: Mapping[str, Tensor | None]
    updates: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]
    sparse: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    frozen: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    counts: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)


def trace(rig: Rig, batch: Any, seed: int, take: Callable[[], Tensor] | None = None) -> Trace:
    """Take one step, by `take` where that is given, with every generator set to `seed` before; what it changed."""
    learning = {name: value for name, value in rig.model.named_parameters() if value.requires_grad}
    before = there(_wide(rig, learning))
    resting = {name: value for name, value in rig.model.named_parameters() if not value.requires_grad}
    rested = {name: value.detach().clone() for name, value in resting.items()}
    counted = there(_wide(rig, _whole_numbers(rig.model)))
    seed_everything(seed)
    with around(rig.outside):
        loss = train_step(rig, batch) if take is None else take()
    after = there(_wide(rig, learning))
    kept = {name: value for name, value in rig.model.named_buffers() if not _is_whole(value)}
    return Trace(
        loss=float(loss),
        gradients=_wide(rig, {name: value.grad for name, value in learning.items()}),
        updates={name: after[name] - value for name, value in before.items()},
        buffers=there(_wide(rig, kept)),
        sparse={
            name: value.grad.detach().clone()
            for name, value in learning.items()
            if value.grad is not None and value.grad.layout is torch.sparse_coo
        },
        frozen=_moved(rig, resting, rested),
        counts={name: value - counted[name] for name, value in there(_wide(rig, _whole_numbers(rig.model))).items()},
    )


def _is_whole(value: Tensor) -> bool:
    return not value.is_floating_point() and not value.is_complex()


def _whole_numbers(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in model.named_buffers() if _is_whole(value)}


def _moved(rig: Rig, resting: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By how much each went from where it was before."""
    if rig.ranks is not None:
        return {
            name: value.norm()
            for name, value in there(
                _wide(rig, {name: value.detach() - before[name] for name, value in resting.items()})
            ).items()
        }
    return {
        name: torch.zeros((), dtype=torch.float64)
        if torch.equal(value, before[name])
        else (wide(value) - wide(before[name])).norm()
        for name, value in resting.items()
    }


def updated_by(rig: Rig, state: Mapping[str, Tensor], made: Trace) -> dict[str, Tensor]:
    """What a rig's own next update makes of weights and of the gradients of a step that somebody else has taken."""
    rig.model.load_state_dict(state)
    learning = {name: value for name, value in rig.model.named_parameters() if value.requires_grad}
    before = {name: wide(value) for name, value in learning.items()}
    for name, value in learning.items():
        given = made.sparse.get(name, made.gradients.get(name))
        value.grad = None if given is None else _as(value, given)
    with around(rig.outside):
        rig.update()
    return {name: wide(value) - before[name] for name, value in learning.items()}


def _as(parameter: Tensor, gradient: Tensor) -> Tensor:
    """A copy of a gradient in a parameter's own numbers."""
    if parameter.is_complex() and not gradient.is_complex():
        gradient = torch.view_as_complex(gradient.contiguous())
    return gradient.to(parameter.device, parameter.dtype, copy=True)


def _wide(rig: Rig, tensors: Mapping[str, Tensor | None]) -> dict[str, Tensor | None]:
    """Copies in float64 on the CPU, whole where processes hold parts."""
    whole = tensors if rig.ranks is None else rig.ranks.whole(tensors)
    return {name: None if (value := whole[name]) is None else wide(value) for name in tensors}


def there(tensors: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
    """Those that are not None."""
    return {name: value for name, value in tensors.items() if value is not None}


def wide(tensor: Tensor) -> Tensor:
    """A copy in float64 on the CPU, dense; of complex numbers both parts, in a last axis."""
    tensor = tensor.detach()
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    return tensor.to("cpu", torch.float64, copy=True)


def widened(batch: Any) -> Any:
    """A batch with its floating-point tensors in float64, and complex ones in as wide numbers."""
    return pytree.tree_map(lambda leaf: leaf.to(_widest(leaf)) if torch.is_tensor(leaf) else leaf, batch)


def widen(model: torch.nn.Module) -> torch.nn.Module:
    """A model with its floating-point and complex tensors in their widest numbers."""
    for one in (*model.double().parameters(), *model.buffers()):
        if one.is_complex():
            one.data = one.data.to(torch.complex128)
    return model


def _widest(tensor: Tensor) -> torch.dtype:
    if tensor.is_complex():
        return torch.complex128
    return torch.float64 if tensor.is_floating_point() else tensor.dtype


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
