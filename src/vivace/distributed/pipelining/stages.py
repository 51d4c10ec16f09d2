"""A model as a chain of modules, cut into stages that take about as long as each other."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn


@dataclasses.dataclass
class _Call:
    """One call of a module: what it was given and gave, and what it called meanwhile."""

    name: str
    module: nn.Module
    given: Any
    gave: Any = None
    inner: list[_Call] = dataclasses.field(default_factory=list)


def chain_of(model: nn.Module, run: Callable[[], Any]) -> list[tuple[str, nn.Module]]:
    """The modules that a model is a chain of, as finely as it can be taken apart: each is given what the one before it
    gave, one tensor, and nothing else happens; but the first may be all that is computed `Before` one of them is
    called. The model alone where it is none.

    `run` calls the model once.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU(), nn.Linear(2, 2)))
    >>> [name for name, _ in chain_of(model, lambda: model(torch.zeros(1, 2)))]
    ['0', '1.0', '1.1']
    """
    call = _calls_of(model, run)
    return [("", model)] if call is None else [(one.name, one.module) for one in _taken_apart(call)]


def _calls_of(model: nn.Module, run: Callable[[], Any]) -> _Call | None:
    """The call of a model, with those inside of it; None where it was not called once."""
    root = _Call("", model, None)
    open_calls: list[_Call] = []

    def begin(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: Any, named: Any) -> None:
            call = _Call(name, module, given[0] if len(given) == 1 and not named else None)
            if open_calls:
                open_calls[-1].inner.append(call)
            else:
                root.inner.append(call)
            open_calls.append(call)

        return hook

    def end(module: nn.Module, given: Any, gave: Any) -> None:
        open_calls.pop().gave = gave

    hooks: list[Any] = []
    for name, module in model.named_modules():
        hooks.append(module.register_forward_pre_hook(begin(name), with_kwargs=True))
        hooks.append(module.register_forward_hook(end))
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return root.inner[0] if len(root.inner) == 1 else None


def _taken_apart(call: _Call) -> list[_Call]:
    """The calls that one is a chain of; the first of them may be all that it does before it calls the others."""
    inner = call.inner
    if not inner or not torch.is_tensor(call.given) or inner[-1].gave is not call.gave:
        return [call]
    first = len(inner) - 1
    while first > 0 and torch.is_tensor(inner[first - 1].given) and inner[first].given is inner[first - 1].gave:
        first -= 1
    begins = inner[first].given
    if not torch.is_tensor(begins):  # the last of them is given two tensors, or something else
        return [call]
    parts = [part for one in inner[first:] for part in _taken_apart(one)]
    if first == 0 and begins is call.given:
        return parts
    if any(one.module is inner[first].module for one in _within(inner[:first])):
        return [call]
    before = Before(call.module, [one.module for one in inner[:first]], [one.module for one in inner[first:]])
    return [_Call(f"{call.name}, before {inner[first].name}".lstrip(", "), before, call.given, begins), *parts]


def _within(calls: Sequence[_Call]) -> Iterator[_Call]:
    for call in calls:
        yield call
        yield from _within(call.inner)


def why_no_chain(model: nn.Module, run: Callable[[], Any]) -> str:
    """Where a model stops being a chain, seen from its end, and what to do about it."""
    call = _calls_of(model, run)
    while call is not None and call.inner:
        name = call.name or "the model"
        last = call.inner[-1]
        if last.gave is not call.gave:
            told = f"{name} gives something else than its last module, {last.name}, gave"
            return f"{told}; put what follows {last.name} into a module, or into the loss"
        if not torch.is_tensor(last.given):
            return f"{last.name} is not given one tensor alone; let it make the others itself, as a mask of its own"
        call = last if len(call.inner) == 1 else None
    return "cut it into more modules that are called one after the other, each with what the one before gave"


class Before(nn.Module):
    """What a module computes before it calls one of its own: the tensor that it gives to that.

    The user's own `forward` runs, and is left where it would call the first of `after`; so it may look up, add and
    reshape as it likes. `called` are the modules that it calls before; `loose` parameters that it uses by itself.
    """

    def __init__(self, owner: nn.Module, called: Sequence[nn.Module], after: Sequence[nn.Module]) -> None:
        super().__init__()
        self._owner = [owner, after[0]]  # no submodules: what comes after may be another stage's
        self.called = nn.ModuleList(dict.fromkeys(called))
        others = {id(one) for module in (self.called, *after) for one in module.parameters()}
        loose = [one for one in owner.parameters() if id(one) not in others]
        self.loose = nn.ParameterList(loose)

    def forward(self, given: Tensor) -> Tensor:
        """The tensor that comes next in the chain."""
        owner, until = self._owner

        def leave(_: nn.Module, found: Any) -> None:
            raise _Reached(found[0])

        hook = until.register_forward_pre_hook(leave, prepend=True)
        try:
            owner(given)
        except _Reached as reached:
            return reached.tensor
        finally:
            hook.remove()
        raise RuntimeError("a model that is cut into stages calls other modules than when it was looked at")


class _Reached(BaseException):
    """A call of the module that is waited for; no Exception, which the user's code may catch."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def balanced(costs: Sequence[float], count: int) -> list[int]:
    """Where to cut a chain into `count` stages, none empty, so that the dearest one is as cheap as can be: the first
    number of each stage. Raises ValueError for more stages than costs.

    >>> balanced([1, 1, 1, 3], 2)
    [0, 3]
    """
    if count > len(costs):
        raise ValueError(f"{len(costs)} modules cannot make {count} stages")
    sums = [0.0]
    for cost in costs:
        sums.append(sums[-1] + cost)
    best: dict[tuple[int, int], tuple[float, int]] = {(0, 0): (0.0, 0)}
    for stage in range(1, count + 1):
        for end in range(stage, len(costs) + 1):
            options = [
                (max(best[stage - 1, start][0], sums[end] - sums[start]), start)
                for start in range(stage - 1, end) if (stage - 1, start) in best
            ]  # fmt: skip
            best[stage, end] = min(options)
    cuts, end = [], len(costs)
    for stage in range(count, 0, -1):
        end = best[stage, end][1]
        cuts.append(end)
    return cuts[::-1]


def tied_between(model: nn.Module, stages: Sequence[nn.Module]) -> dict[str, nn.Parameter]:
    """The parameters that more than one stage holds, by their names in the model, all that it has for one: such as an
    embedding whose weight is also that of the last layer."""
    holders = Counter(id(one) for stage in stages for one in dict.fromkeys(stage.parameters()))
    found: dict[int, tuple[list[str], nn.Parameter]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if holders[id(parameter)] > 1:
            found.setdefault(id(parameter), ([], parameter))[0].append(name)
    return {" and ".join(names): parameter for names, parameter in found.values()}


class Probe:
    """Stands in for a model to learn what a loss calls it with; raises Captured there."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise Captured(args, kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


class Captured(Exception):
    """What a model was called with."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.args_given = args
        self.kwargs_given = kwargs
        super().__init__("the model was called")


class Answered:
    """Stands in for a model whose answer is known already."""

    def __init__(self, model: nn.Module, answer: Tensor) -> None:
        self._model = model
        self._answer = answer

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        return self._answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)
