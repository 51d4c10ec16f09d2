"""What a job's own code holds beside the tensors of model and optimizer: counters, generators, a sampler's place."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vivace.core.training.job import Training
from vivace.core.training.rig import Rig
from vivace.core.training.user_code import cells_of, is_installed, names_in
from vivace.training.keeping.values import (
    Unwritable,
    arrays_in,
    copied,
    equal,
    is_data,
    is_freed,
    put_back,
    read,
    weight,
    written,
)

MOST_BYTES = float(64 << 20)
"""Of one value: what is larger are samples, which are read and not written."""
COPIED_BYTES = float(1 << 20)
"""Of the tensors and arrays in a value: of more only is seen whether they are others, or, of tensors, written to."""
MOST_OBJECTS, MOST_ELEMENTS = 10_000, 1_000
"""That are walked; elements of a list that holds objects."""
MODULE = frozenset(vars(nn.Module()))
STRANGE = ("vivace.", "keras.", "multiprocessing.", "threading", "torch.optim.lr_scheduler", "torch.utils.data._utils")
"""Modules of what is not looked into: ours, and what cannot be put back."""
OF_RANKS = "torch.distributed."
"""What arranges processes; modules that it has made of the user's are the user's."""
UNSEEN = frozenset({"_iterator"})
"""Of a DataLoader: its workers."""

Place = tuple[str, str]
"""Where a value is: the path of what holds it, and its name there."""
_NONE = object()


@dataclasses.dataclass(frozen=True)
class Kept:
    """Values that have changed since the training was made, and what has changed and cannot be kept, in words."""

    values: Mapping[Place, Any] = dataclasses.field(default_factory=dict)
    lost: tuple[str, ...] = ()

    def written(self, tensors: dict[str, Tensor], name: str) -> list[list[Any]]:
        """As JSON, with arrays in `tensors`."""
        found = []
        for (path, key), value in self.values.items():
            try:
                found.append([path, key, written(value, tensors, name)])
            except Unwritable:  # such as an Enum among numbers
                continue
        return found

    @staticmethod
    def read(told: list[Any], tensors: Mapping[str, Tensor]) -> Kept:
        """What `written` wrote."""
        return Kept({(path, key): read(value, tensors) for path, key, value in told})


class OwnState:
    """Knows what the code of a job may count or draw by itself, from when it is made: attributes of its dataset,
    samplers, modules, optimizer and functions, what functions close over, and the globals that they name. Without a
    rig, of what the job is given as, and not of its model and optimizer.

    Numbers, texts, arrays and generators are kept, in containers of Python's; other objects are looked into. Where an
    attribute becomes an object beside others that change, such as a file that is opened and a flag that says so, none
    of the two is kept: the flag without the file would be wrong.
    """

    def __init__(self, job: Training, rig: Rig | None = None) -> None:
        self._holders = dict(_Walk().holders(job, rig))
        self._first = {path: {key: _mark(value) for key, value in held.items()} for path, held in self._holders.items()}

    def now(self) -> Kept:
        """What has changed."""
        values: dict[Place, Any] = {}
        lost: list[str] = []
        for path, held in self._holders.items():
            first = self._first[path]
            changed = {
                key: value
                for key, value in list(held.items())
                if isinstance(key, str) and key not in UNSEEN and not _is_as(value, first.get(key, _NONE))
            }
            kept = {key: copied(value) for key, value in changed.items() if _is_kept(value)}
            others = sorted(set(changed) - set(kept))
            if others and kept:
                lost.append(f"{path}: {', '.join(sorted(kept))}, beside {', '.join(map(str, others))}")
            elif not others:
                values |= {(path, key): value for key, value in kept.items()}
            elif any(_is_array(changed[key]) for key in others):
                lost.append(f"{path}: {', '.join(others)}, which is too large")
        return Kept(values, tuple(lost))

    def restore(self, kept: Kept = Kept()) -> None:
        """Put everything as it was then, or as it was at first; what this training does not have is passed over."""
        now = self.now().values
        for path, key in [*(place for place in now if place not in kept.values), *kept.values]:
            held = self._holders.get(path)
            if held is None:
                continue
            if (path, key) in kept.values:
                put_back(held, {key: copied(kept.values[path, key])})
            else:
                mark = self._first[path].get(key, _NONE)
                if mark is _NONE:
                    held.pop(key, None)
                elif not isinstance(mark, _Mark):
                    put_back(held, {key: copied(mark)})


class _Mark:
    """How a value that is not copied is known again: which objects it is made of, and how often tensors were written
    to. Of very many, as samples are, the first tell."""

    def __init__(self, value: Any) -> None:
        self._parts = [(part, _version(part)) for part in (value, *_first_arrays(value))]

    def is_of(self, value: Any) -> bool:
        parts = [value, *_first_arrays(value)]
        return len(parts) == len(self._parts) and all(
            one is part and _version(one) == version for one, (part, version) in zip(parts, self._parts, strict=True)
        )


def _mark(value: Any) -> Any:
    return copied(value) if _is_kept(value) and _is_small(value) else _Mark(value)


def _version(value: Any) -> int:
    return value._version if torch.is_tensor(value) and not value.is_inference() else 0


def _is_as(value: Any, mark: Any) -> bool:
    if isinstance(mark, _Mark):
        return mark.is_of(value)
    if torch.is_tensor(value) and is_freed(value):
        return True  # it holds nothing that could be kept
    return mark is not _NONE and equal(value, mark)


def _is_array(value: Any) -> bool:
    return next(arrays_in(value), None) is not None


def _is_small(value: Any) -> bool:
    found = _first_arrays(value)
    return len(found) < MOST_ELEMENTS and sum(one.nbytes for one in found) < COPIED_BYTES


def _first_arrays(value: Any) -> list[Any]:
    return list(itertools.islice(arrays_in(value), MOST_ELEMENTS))


def _is_kept(value: Any) -> bool:
    if torch.is_tensor(value) and (type(value) is not Tensor or value.layout is not torch.strided or value.is_meta):
        return False
    return weight(value, MOST_BYTES) < MOST_BYTES and is_data(value)


class _Cells:
    """What a function closes over, by name."""

    def __init__(self, function: types.FunctionType) -> None:
        self._function = function
        self._cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))

    def items(self) -> list[tuple[str, Any]]:
        return [(name, cell.cell_contents) for name, cell in cells_of(self._function).items()]

    def get(self, name: str, default: Any = None) -> Any:
        return dict(self.items()).get(name, default)

    def pop(self, name: str, default: Any = None) -> Any:
        return default

    def __setitem__(self, name: str, value: Any) -> None:
        if name in self._cells:
            self._cells[name].cell_contents = value


class _Some:
    """Some names of a mapping."""

    def __init__(self, whole: dict[str, Any], is_of: Callable[[str], bool]) -> None:
        self._whole = whole
        self._is_of = is_of

    def items(self) -> list[tuple[str, Any]]:
        return [(name, value) for name, value in self._whole.items() if isinstance(name, str) and self._is_of(name)]

    def get(self, name: str, default: Any = None) -> Any:
        return self._whole.get(name, default)

    def pop(self, name: str, default: Any = None) -> Any:
        return self._whole.pop(name, default)

    def __setitem__(self, name: str, value: Any) -> None:
        self._whole[name] = value


class _Learns:
    """Which parameters learn."""

    def __init__(self, model: nn.Module) -> None:
        self._parameters = dict(model.named_parameters())

    def items(self) -> list[tuple[str, Any]]:
        return [(name, one.requires_grad) for name, one in self._parameters.items()]

    def get(self, name: str, default: Any = None) -> Any:
        return self._parameters[name].requires_grad if name in self._parameters else default

    def pop(self, name: str, default: Any = None) -> Any:
        return default

    def __setitem__(self, name: str, value: Any) -> None:
        if name in self._parameters:
            self._parameters[name].requires_grad_(value)


class _Walk:
    """Finds what may hold something that changes, each once, by paths that are the same in every process."""

    def __init__(self) -> None:
        self._met: set[int] = set()
        self._alive: list[Any] = []

    def holders(self, job: Training, rig: Rig | None) -> Iterator[tuple[str, Any]]:
        """All of a job and its rig."""
        roots: dict[str, Any] = {}
        if rig is not None:
            yield "model.requires_grad", _Learns(rig.model)
            roots = {"model": rig.model, "optimizer": rig.optimizer}
        roots |= {name: getattr(job, name) for name in ("data", "augment", "loss", "collate", "weight", "evaluate")}
        waiting: list[tuple[str, Any]] = list(reversed(roots.items()))
        while waiting and len(self._met) < MOST_OBJECTS:
            path, value = waiting.pop()
            if id(value) in self._met or _is_strange(value) or _is_kept(value):
                continue
            self._met.add(id(value))
            self._alive.append(value)
            for name, held in _held(value):
                yield f"{path}{name}", held
                waiting += reversed([(f"{path}{name}.{key}", part) for key, part in held.items() if key not in UNSEEN])
            waiting += reversed([(f"{path}.{key}", part) for key, part in _inside(value)])


def _held(value: Any) -> Iterator[tuple[str, Any]]:
    """The mappings in which a value holds others by their names."""
    if isinstance(value, dict):
        yield "", value
    elif isinstance(value, types.FunctionType):
        names = frozenset(names_in(value.__code__))
        yield " closes over", _Cells(value)
        yield " names", _Some(value.__globals__, names.__contains__)
        for name in sorted(names):
            module = value.__globals__.get(name)
            if isinstance(module, types.ModuleType) and not is_installed(module):
                yield f" names {name}", _Some(vars(module), names.__contains__)
        yield "", vars(value)
    elif isinstance(value, nn.Module):
        yield "", _Some(vars(value), lambda name: name not in MODULE)
        yield " buffers", _Some(value._buffers, value._non_persistent_buffers_set.__contains__)
    elif isinstance(value, torch.optim.Optimizer):
        ours = _of_optimizers()
        yield "", _Some(vars(value), lambda name: name not in ours)
    elif hasattr(value, "__dict__") and not isinstance(value, type):
        yield "", vars(value)


@functools.cache
def _of_optimizers() -> frozenset[str]:
    """What any optimizer holds; making one loads a compiler, so it is made when first asked for."""
    return frozenset(vars(torch.optim.SGD([torch.zeros(1)], 0.1)))


def _inside(value: Any) -> Iterator[tuple[str, Any]]:
    """What a value holds without a name that could be given another value."""
    if isinstance(value, list | tuple):
        yield from ((str(place), part) for place, part in enumerate(value[:MOST_ELEMENTS]))
    elif isinstance(value, types.MethodType):
        yield from (("self", value.__self__), ("function", value.__func__))
    elif isinstance(value, functools.partial):
        yield from (("function", value.func), ("arguments", value.args), ("keywords", value.keywords))
    elif isinstance(value, types.FunctionType):
        yield from (("defaults", value.__defaults__ or ()), ("keywords", value.__kwdefaults__ or {}))
    elif not isinstance(value, dict):
        yield from value._modules.items() if isinstance(value, nn.Module) else ()
        yield from _methods(type(value))


def _methods(kind: type) -> Iterator[tuple[str, types.FunctionType]]:
    """The functions of a class of the user's, with those of its bases: they may name globals."""
    for one in kind.__mro__:
        if not is_installed(sys.modules.get(one.__module__)) and one.__module__ != "builtins":
            yield from (
                (f"{one.__qualname__}.{name}", part)
                for name, part in vars(one).items()
                if isinstance(part, types.FunctionType)
            )


def _is_strange(value: Any) -> bool:
    """Whether a value is nothing to look into: a tensor, a module, a class, or code of Python, of a package or ours."""
    if isinstance(value, torch.Tensor | types.ModuleType | types.BuiltinFunctionType | type):
        return True
    home = value if isinstance(value, types.FunctionType) else type(value)
    name = getattr(home, "__module__", None) or ""
    if name.startswith(OF_RANKS) and not isinstance(value, nn.Module):
        return True
    if name.startswith(STRANGE) and not name.startswith("vivace.testing."):
        return True
    is_of_package = is_installed(sys.modules.get(name)) and not name.startswith("vivace.testing.")
    return isinstance(value, types.FunctionType) and is_of_package
