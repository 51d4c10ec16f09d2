"""An optimizer's fused kernel called with lists that are made once, in place of the optimizer's own bookkeeping."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.optim.optimizer as parts
from torch import Tensor

from vivace.core.errors import NotApplicable

Kernel = Callable[["_Lists", list[Tensor], Mapping[str, Any]], None]


@dataclasses.dataclass
class _Lists:
    """Parameters of one group that have a gradient, and their state."""

    parameters: list[Tensor]
    state: dict[str, list[Tensor]]


class FusedStep:
    """An optimizer's own step, which was told to use its fused kernel. Raises NotApplicable where the gradients of the
    first step are sparse, as those of `torch.nn.functional.embedding(..., sparse=True)` are: no fused kernel takes
    them. Where later ones are, the optimizer goes on without the kernel. `names` are those of its parameters, by id.
    """

    repeats_step = True
    """The optimizer's own `step`, which uses the same kernel, does the same."""

    def __init__(self, optimizer: torch.optim.Optimizer, step: Callable[[], Any], names: Mapping[int, str]) -> None:
        self._optimizer = optimizer
        self._own_step = step
        self._names = names
        self._everything = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._has_stepped = False

    def __call__(self) -> Any:
        """One step."""
        return self._step_of(self._layouts())

    def _layouts(self) -> list[torch.layout | None]:
        """How each parameter's gradient lies in memory; None where it has none."""
        return [None if parameter.grad is None else parameter.grad.layout for parameter in self._everything]

    def _step_of(self, layouts: list[torch.layout | None]) -> Any:
        """The optimizer's own step, with gradients that lie so."""
        sparse = [one for one, layout in zip(self._everything, layouts, strict=True) if layout is torch.sparse_coo]
        if sparse and not self._has_stepped:
            name = self._names.get(id(sparse[0]), "a parameter")
            raise NotApplicable(f"{name} has sparse gradients, which no fused kernel takes")
        if sparse:
            for group in self._optimizer.param_groups:
                group["fused"] = False
        self._has_stepped = True
        return self._own_step()


class FusedUpdate(FusedStep):
    """Takes an optimizer's step. What the optimizer keeps, and what its groups say (also a rate that a schedule
    changes), stays in the optimizer; only finding it again each step is left out.

    The first step, and every one in which other parameters have gradients than in the one before, is the optimizer's
    own. So is every step of an optimizer with hooks, and every one with sparse gradients.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, step: Callable[[], Any], names: Mapping[int, str]) -> None:
        super().__init__(optimizer, step, names)
        self._kernel = KERNELS[type(optimizer)]
        self._lists: list[_Lists] = []
        self._known: list[torch.layout | None] = []

    def __call__(self) -> Any:
        """One step."""
        layouts = self._layouts()
        if layouts != self._known or self._has_hooks() or self._state_moved():
            found = self._step_of(layouts)
            self._known = layouts if torch.sparse_coo not in layouts and self._gather() else []
            return found
        with torch.no_grad():
            for lists, group in zip(self._lists, self._optimizer.param_groups, strict=True):
                if lists.parameters:
                    self._kernel(lists, [one.grad for one in lists.parameters], group)  # type: ignore[misc]
        return None

    def _has_hooks(self) -> bool:
        return has_hooks(self._optimizer)

    def _state_moved(self) -> bool:
        """Whether the optimizer's state was loaded anew since its tensors were gathered."""
        first = next((lists for lists in self._lists if lists.parameters and lists.state), None)
        if first is None:
            return False
        name = next(iter(first.state))
        return self._optimizer.state[first.parameters[0]].get(name) is not first.state[name][0]

    def _gather(self) -> bool:
        """Whether every group's state is what its kernel takes: one device and type, nothing missing."""
        self._lists = [self._of_group(group) for group in self._optimizer.param_groups]
        return all(_is_uniform(lists) for lists in self._lists)

    def _of_group(self, group: Mapping[str, Any]) -> _Lists:
        parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
        states = [self._optimizer.state[parameter] for parameter in parameters]
        names = [name for name, value in states[0].items() if torch.is_tensor(value)] if states else []
        return _Lists(parameters, {name: [state[name] for state in states if name in state] for name in names})


def has_kernel(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the update of this very class can be called directly."""
    return type(optimizer) in KERNELS and steps_as_its_class(optimizer)


def steps_as_its_class(optimizer: torch.optim.Optimizer) -> bool:
    """Whether nothing was put in the place of its `step`, such as a function that clips gradients before. What a
    schedule puts around it only counts."""
    own = vars(optimizer).get("step")
    is_counting = getattr(own, "_wrapped_by_lr_sched", False)
    return own is None or (is_counting and own.__wrapped__ is type(optimizer).step)


def has_hooks(optimizer: torch.optim.Optimizer) -> bool:
    """Whether something is called before or after its steps: hooks of its own, or of all optimizers."""
    of_all = (parts._global_optimizer_pre_hooks, parts._global_optimizer_post_hooks)
    return bool(optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks or any(of_all))


def _is_uniform(lists: _Lists) -> bool:
    kinds = {(one.device, one.dtype) for one in lists.parameters}
    is_whole = all(len(column) == len(lists.parameters) for column in lists.state.values())
    return len(kinds) <= 1 and is_whole


def _adam(lists: _Lists, gradients: list[Tensor], group: Mapping[str, Any]) -> None:
    state = lists.state
    kernel: Callable[..., None] = torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_
    torch._foreach_add_(state["step"], 1)
    kernel(
        lists.parameters, gradients, state["exp_avg"], state["exp_avg_sq"], state.get("max_exp_avg_sq", []),
        state["step"], amsgrad=group["amsgrad"], lr=group["lr"], beta1=group["betas"][0], beta2=group["betas"][1],
        weight_decay=group["weight_decay"], eps=group["eps"], maximize=group["maximize"],
    )  # fmt: skip


def _sgd(lists: _Lists, gradients: list[Tensor], group: Mapping[str, Any]) -> None:
    torch._fused_sgd_(
        lists.parameters, gradients, lists.state.get("momentum_buffer", []), weight_decay=group["weight_decay"],
        momentum=group["momentum"], lr=group["lr"], dampening=group["dampening"], nesterov=group["nesterov"],
        maximize=group["maximize"], is_first_step=False,
    )  # fmt: skip


KERNELS: dict[type[torch.optim.Optimizer], Kernel] = {
    torch.optim.Adam: _adam, torch.optim.AdamW: _adam, torch.optim.SGD: _sgd,
}  # fmt: skip
"""Kernels by the very class of the optimizer."""
