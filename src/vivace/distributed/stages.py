"""A model as a chain of modules, cut into stages that take about as long as each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
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
    gave, one tensor, and nothing else happens. The model alone where it is none.

    `run` calls the model once.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU(), nn.Linear(2, 2)))
    >>> [name for name, _ in chain_of(model, lambda: model(torch.zeros(1, 2)))]
    ['0', '1.0', '1.1']
    """
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
    if len(root.inner) != 1:
        return [("", model)]
    return [(call.name, call.module) for call in _taken_apart(root.inner[0])]


def _taken_apart(call: _Call) -> list[_Call]:
    inner = call.inner
    is_chain = bool(inner) and torch.is_tensor(call.given) and all(torch.is_tensor(one.gave) for one in inner)
    given = [call.given, *(one.gave for one in inner)]
    if not is_chain or any(one.given is not before for one, before in zip(inner, given, strict=False)):
        return [call]
    if inner[-1].gave is not call.gave:
        return [call]
    return [part for one in inner for part in _taken_apart(one)]


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


def shared_between(stages: Sequence[nn.Module]) -> bool:
    """Whether two stages hold the same parameter."""
    seen: dict[int, int] = {}
    for number, stage in enumerate(stages):
        for parameter in stage.parameters():
            if seen.setdefault(id(parameter), number) != number:
                return True
    return False


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
