"""What was fused: an operator of the program that runs, and the layers of the model that it does the work of."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from vivace.core.measurement import Interval


@dataclasses.dataclass(frozen=True)
class Fused:
    """One operator that does the work of several. `layers` are module paths of the model as it was captured, and names
    of graph nodes where there is no path; in the order of the graph."""

    operator: str
    layers: tuple[str, ...]

    def __str__(self) -> str:
        return "+".join(self.layers)

    def to_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` reads back."""
        return {"operator": self.operator, "layers": list(self.layers)}

    @staticmethod
    def from_json(node: Mapping[str, Any]) -> Fused:
        """Read what `to_json` wrote. Raises KeyError, and TypeError for anything but texts.

        >>> Fused.from_json({"operator": "conv2d", "layers": ["stem.0", "stem.1"]})
        Fused(operator='conv2d', layers=('stem.0', 'stem.1'))
        """
        if not all(isinstance(text, str) for text in (node["operator"], *node["layers"])):
            raise TypeError(f"an operator and its layers are texts; received {node}")
        return Fused(node["operator"], tuple(node["layers"]))


@dataclasses.dataclass(frozen=True)
class FusedList:
    """What is known to be fused in a program; `note` says what of it could not be listed, and is empty otherwise."""

    groups: tuple[Fused, ...] = ()
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Gain:
    """What a technique of the winner is worth: the winner's speed over that of the same plan without it, by the race
    (which ranks and makes no claim)."""

    technique: str
    speedup: Interval

    def __str__(self) -> str:
        return f"{self.technique} {self.speedup.value:.2f}x [{self.speedup.low:.2f}, {self.speedup.high:.2f}]"


def joined(rewrites: Iterable[Fused], compiler: Iterable[Fused]) -> tuple[Fused, ...]:
    """What rewrites and then a compiler fused: a layer that stands for a rewrite's group brings the whole group.

    >>> rewrites = [Fused("conv2d", ("conv1", "bn1")), Fused("conv2d", ("conv2", "bn2"))]
    >>> [str(group) for group in joined(rewrites, [Fused("Convolution", ("conv1", "relu"))])]
    ['conv1+bn1+relu', 'conv2+bn2']
    """
    left, groups = list(dict.fromkeys(rewrites)), []
    for group in compiler:
        layers: list[str] = []
        for layer in group.layers:
            own = next((one for one in left if layer in one.layers), None)
            if own is not None:
                left.remove(own)
            layers += own.layers if own is not None else (layer,)
        groups.append(Fused(group.operator, tuple(dict.fromkeys(layers))))
    return (*groups, *left)
