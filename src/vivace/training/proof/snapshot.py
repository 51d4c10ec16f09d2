"""A rig as it stands at one moment: put back afterwards to the bit, or into a fresh rig of the same job."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from vivace.core.training.rig import Rig
from vivace.training.checkpoint import Generators, whole_entries, with_own_kernels
from vivace.training.keeping.values import NUMBERS, copied, is_data, put_back
from vivace.training.standing import PLAIN
from vivace.training.trace import there

OF_TORCH = frozenset(vars(nn.Module()))
"""What every module has, which its tensors, modules and hooks lie in."""
LIBRARIES = ("torch.", "keras.")
"""Whose modules set no attribute of their own when they are called."""
Key = tuple[str, str]
"""A module's name, and that of its attribute; of a parameter its own name, and `requires_grad`."""


class Snapshot:
    """Everything of a rig that a step may change: parameters, buffers, the optimizer's state and settings, the scale of
    the loss, what modules keep in plain attributes, what the loss counts beside them, and the generators. `changed` are
    attributes that the job's own code has set since the model was made (`standing`).

    >>> rig = assemble(job())  # doctest: +SKIP
    >>> kept = Snapshot(rig, {}, job().loss)  # doctest: +SKIP
    >>> kept.restore()  # doctest: +SKIP
    """

    def __init__(self, rig: Rig, changed: Mapping[Key, Any], loss: Callable[..., Any]) -> None:
        self._rig = rig
        self.state = {name: value.detach().clone() for name, value in rig.model.state_dict().items()}
        self._tensors = [(one, one.detach().clone()) for one in (*rig.model.parameters(), *rig.model.buffers())]
        self._buffers = {name: value.detach().clone() for name, value in rig.model.named_buffers()}
        self._optimizer = copy.deepcopy(rig.optimizer.state_dict())
        self._states = dict(rig.optimizer.state)
        self._entries = [(state, dict(state), _copies(state)) for state in self._states.values()]
        self._groups = [(group, _copies(group)) for group in rig.optimizer.param_groups]
        self._scaling = None if rig.scaling is None else rig.scaling.state()
        self._attributes = [
            (vars(module), name, value, copied(value))
            for module in rig.model.modules()
            for name, value in vars(module).items()
            if name not in OF_TORCH - {"training"} and is_data(value)
        ]
        self._attributes += [(held, name, held[name], copied(held[name])) for held, name in beside(loss)]
        self._given = {key: copied(value) for key, value in own_attributes(rig.model).items()} | dict(changed)
        self._generators = Generators.now()

    @property
    def optimizer_state(self) -> Mapping[int, Mapping[str, Any]]:
        """What the optimizer keeps of each parameter, by the parameter's number."""
        found: Mapping[int, Mapping[str, Any]] = self._optimizer["state"]
        return found

    def gather(self) -> None:
        """Where several processes train, know the whole of what they hold parts of: `into` needs it. For all of them to
        call."""
        ranks = self._rig.ranks
        if ranks is None:
            return
        self.state = there(ranks.whole(self.state))
        self._buffers |= there(ranks.whole(self._buffers))
        found: dict[int, dict[str, Any]] = {}
        for name, value in whole_entries(self._rig, self._optimizer["state"]).items():
            _, number, key = name.split("/", 2)
            is_count = torch.is_tensor(value) and not value.ndim  # which stays off the device
            found.setdefault(int(number), {})[key] = value.cpu() if is_count else value
        self._optimizer = {**self._optimizer, "state": found}

    def restore(self) -> None:
        """Put the rig and the generators back; tensors stay where they are."""
        with torch.no_grad():
            for tensor, before in self._tensors:
                tensor.copy_(before)
            self._rig.optimizer.state.clear()  # before the first step there is none
            self._rig.optimizer.state.update(self._states)
            for state, objects, kept in self._entries:
                state.clear()
                state.update(objects)
                put_back(state, kept)
            for group, kept in self._groups:
                put_back(group, kept)
            for holder, name, value, content in self._attributes:
                holder[name] = value
                put_back(holder, {name: content})
        if self._rig.scaling is not None and self._scaling is not None:
            self._rig.scaling.load(self._scaling)
        self._generators.restore()

    def into(self, rig: Rig) -> Rig:
        """A fresh rig of the same job, which stands as this one did from now on; its kernels stay its own."""
        modules = dict(rig.model.named_modules())
        parameters = dict(rig.model.named_parameters(remove_duplicate=False))
        for (owner, name), value in self._given.items():
            if name == "requires_grad":
                parameters[owner].requires_grad_(value)
            elif owner in modules:
                modules[owner].__dict__[name] = copied(value)
        rig.model.load_state_dict(self.state)
        with torch.no_grad():
            for name, buffer in rig.model.named_buffers():  # also those that no state_dict has
                buffer.copy_(self._buffers[name])
        loaded = copy.deepcopy(self._optimizer)
        own = rig.optimizer.state_dict()["param_groups"]
        loaded["param_groups"] = with_own_kernels(loaded["param_groups"], own)
        rig.optimizer.load_state_dict(loaded)
        return rig


def own_attributes(model: nn.Module) -> dict[Key, Any]:
    """What modules of the job's own classes keep in attributes: a step may change it, a technique does not."""
    return {
        (owner, name): value
        for owner, module in model.named_modules()
        if not _kind(module).__module__.startswith(LIBRARIES)
        for name, value in vars(module).items()
        if name not in OF_TORCH and is_data(value)
    }


def _kind(module: nn.Module) -> type:
    """A module's class; of one that FSDP2 has put a class of its own in front of, the one behind it."""
    return next(one for one in type(module).__mro__ if not one.__module__.startswith("torch.distributed."))


def standing(model: nn.Module) -> dict[Key, Any]:
    """What somebody may set beside a step: plain attributes of any module, and which parameters learn."""
    found: dict[Key, Any] = {
        (owner, name): value
        for owner, module in model.named_modules()
        for name, value in vars(module).items()
        if name not in OF_TORCH and type(value) in PLAIN
    }
    learns = {(name, "requires_grad"): value.requires_grad for name, value in model.named_parameters()}
    return found | learns


def set_by(act: Callable[[], Any], model: nn.Module, known: dict[Key, Any]) -> Any:
    """What `act` returns, code of the job's own; what it sets meanwhile is added to `known`."""
    before = standing(model)
    try:
        return act()
    finally:
        known |= {key: value for key, value in standing(model).items() if key not in before or before[key] != value}


def beside(loss: Callable[..., Any]) -> list[tuple[dict[str, Any], str]]:
    """Where a loss may count or keep something: the globals that it names, and the attributes of its object."""
    of_object = vars(type(loss)).get("__call__")
    code = getattr(loss, "__code__", None) or getattr(of_object, "__code__", None)
    known: dict[str, Any] = getattr(loss, "__globals__", {})
    names = code.co_names if code is not None else ()
    found = [(known, name) for name in names if _is_small(known.get(name))]
    own: dict[str, Any] = getattr(getattr(loss, "__self__", loss), "__dict__", {})
    return [*found, *((own, name) for name in own if _is_small(own[name]))]


def _is_small(value: Any) -> bool:
    """Whether a value is data, and no array, which a loss reads and hardly writes."""
    return value is not None and is_data(value) and not isinstance(value, NUMBERS)


def _copies(state: Mapping[str, Any]) -> dict[str, Any]:
    return {key: copied(value) for key, value in state.items() if key != "params"}
