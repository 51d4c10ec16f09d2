"""What a recorded step holds for: what learns, what trains, and the plain values that modules keep in attributes."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch

PLAIN = (bool, int, float, str, type(None))
"""Types of attributes that Python code may decide by, and that can be compared."""

State = tuple[Hashable, ...]


class Standing:
    """How a model stands. A recording is one of a model that stands as it did; an attribute that somebody sets between
    two steps (a phase, a temperature) may make another step of it.

    >>> model = torch.nn.Linear(2, 1)
    >>> standing = Standing(model)
    >>> before = standing.now()
    >>> model.out_features = 2
    >>> standing.now() == before
    False
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._parameters, modules = list(model.parameters()), list(model.modules())
        self._kept: list[tuple[dict[str, Any], str]] = [
            (vars(module), name) for module in modules for name, value in vars(module).items() if type(value) in PLAIN
        ]

    def now(self) -> State:
        """As it stands."""
        return (*[one.requires_grad for one in self._parameters], *[held.get(name) for held, name in self._kept])

    def settle(self, before: State) -> None:
        """Look no more at what has changed since, as the step itself changes it: it counts its calls."""
        values = before[len(self._parameters) :]
        self._kept = [one for one, value in zip(self._kept, values, strict=True) if one[0].get(one[1]) == value]
