"""Keeps the optimizer's moments in bfloat16, rounded at random so that small changes are not lost."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from vivace.core.errors import NotApplicable
from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.training.job import Training
from vivace.core.training.rig import Rig
from vivace.core.work import Work
from vivace.training.fused_update import has_hooks, steps_as_its_class


@dataclasses.dataclass(frozen=True)
class NarrowOptimizerState(Technique):
    """Moments in 2 bytes a number, not 4. Each parameter's are widened for its own update alone.

    An average that moves by a thousandth of itself each step stands still when it is rounded to the nearest bfloat16,
    so numbers are rounded up or down by chance, in proportion to how near they are (PyTorch's generator, so a run that
    is resumed goes on exactly). Weights stay in float32. Raises NotApplicable where the optimizer keeps nothing as
    large as its parameters, is not one of PyTorch's, or has hooks or a `step` of its own, which would see one parameter
    at a time. It saves memory and costs time, so a search does not try it by itself.

    Source: Gupta et al., Deep Learning with Limited Numerical Precision, ICML 2015 (arXiv:1502.02551), section 3
    (stochastic rounding); Dettmers et al., 8-bit Optimizers via Block-wise Quantization, ICLR 2022 (arXiv:2110.02861).

    >>> NarrowOptimizerState.name()
    'narrow-optimizer-state'
    """

    stage = Stage.MEMORY
    family = Family.ALGORITHM
    effect = Effect.CHANGED
    needs = frozenset({Fact.TRAINING, Fact.PLAIN_OPTIMIZER, Fact.UNSCALED_LOSS})
    breaks = frozenset({Fact.PLAIN_OPTIMIZER})
    source = "Gupta et al., ICML 2015, arXiv:1502.02551; Dettmers et al., ICLR 2022, arXiv:2110.02861"

    @classmethod
    def variants(cls, work: Work, machine: Machine) -> Iterator[Technique]:
        """None by itself: it saves memory, not time."""
        return iter(())

    def equip(self, rig: Rig, job: Training) -> Rig:
        """The rig with an update that narrows what it leaves."""
        if not type(rig.optimizer).__module__.startswith("torch.optim."):
            raise NotApplicable(f"where {type(rig.optimizer).__name__} keeps its moments is not known here")
        if has_hooks(rig.optimizer) or not steps_as_its_class(rig.optimizer):
            raise NotApplicable("the optimizer has hooks or a step of its own, which must see all gradients at once")
        if isinstance(rig.optimizer, torch.optim.SGD) and not any(g["momentum"] for g in rig.optimizer.param_groups):
            raise NotApplicable("the optimizer keeps nothing as large as its parameters")
        return rig.replace(update=_NarrowUpdate(rig.optimizer, rig.update))


class _NarrowUpdate:
    """Takes the optimizer's step for one parameter after the other, so that one state at a time is wide."""

    def __init__(self, optimizer: torch.optim.Optimizer, step: Callable[[], Any]) -> None:
        self._optimizer = optimizer
        self._step = step

    def __call__(self) -> None:
        everything = [parameter for group in self._optimizer.param_groups for parameter in group["params"]]
        gradients = [parameter.grad for parameter in everything]
        for parameter in everything:
            parameter.grad = None
        for parameter, gradient in zip(everything, gradients, strict=True):
            if gradient is not None:
                self._one(parameter, gradient)
        for parameter, gradient in zip(everything, gradients, strict=True):
            parameter.grad = gradient

    def _one(self, parameter: Tensor, gradient: Tensor) -> None:
        state = self._optimizer.state[parameter]
        for key, value in state.items():
            if _is_moment(value, parameter):
                state[key] = value.to(parameter.dtype)
        parameter.grad = gradient
        self._step()
        parameter.grad = None
        for key, value in state.items():
            if _is_moment(value, parameter):
                state[key] = rounded_by_chance(value)


def _is_moment(value: Any, parameter: Tensor) -> bool:
    is_dense = torch.is_tensor(value) and value.layout is torch.strided
    return is_dense and value.is_floating_point() and value.shape == parameter.shape and value.ndim > 0


def rounded_by_chance(value: Tensor) -> Tensor:
    """A float32 tensor in bfloat16: up or down with the probabilities that make the mean right.

    A random number below one unit of the last place that stays is added to the bits; then they are cut.

    >>> torch.manual_seed(0) and rounded_by_chance(torch.full((1000,), 1.001)).float().mean().item()
    1.00...
    """
    bits = value.to(torch.float32).contiguous().view(torch.int32)
    noise = torch.randint(0, 1 << 16, bits.shape, dtype=torch.int32, device=bits.device)
    cut = ((bits + noise) & -(1 << 16)).view(torch.float32)
    return torch.where(value.isfinite(), cut, value.to(torch.float32)).to(torch.bfloat16).view(value.shape)
