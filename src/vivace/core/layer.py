"""A layer, one product of a model's graph that a precision can be chosen for; and layers that run as one operator."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vivace.core.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Layer:
    """One convolution or matrix product. `name` is its node in the captured graph, `path` the module that it came from
    (empty where it came from none, as in a functional call), `operator` what it computes."""

    name: str
    path: str
    operator: str

    def __str__(self) -> str:
        return self.path or self.name

    def answers_to(self, pattern: str) -> bool:
        """Whether a user's name means this layer: its path or its node, or a pattern of either.

        >>> Layer("conv2d_3", "layer1.0.conv1", "conv2d").answers_to("layer1.*")
        True
        """
        return fnmatch.fnmatchcase(self.path, pattern) or fnmatch.fnmatchcase(self.name, pattern)


def chosen(layers: Sequence[Layer], patterns: Iterable[str]) -> tuple[str, ...]:
    """The names of the layers that these patterns mean, in the graph's order.

    Raises UsageError for a pattern that means none, with some names that are there.

    >>> chosen([Layer("linear", "head", "linear")], ["he*"])
    ('linear',)
    """
    wanted = list(patterns)
    for pattern in wanted:
        if not any(layer.answers_to(pattern) for layer in layers):
            there = ", ".join(str(layer) for layer in layers[:12]) or "none"
            more = f" and {len(layers) - 12} more" if len(layers) > 12 else ""
            raise UsageError(
                f"keep (--keep) received {pattern!r}, which no layer answers to; the layers are {there}{more}"
            )
    return tuple(layer.name for layer in layers if any(layer.answers_to(pattern) for pattern in wanted))


@dataclasses.dataclass(frozen=True)
class LayerSensitivity:
    """What int8 in one layer alone does to the output, beside that layer's share of the time of all layers in float32.

    `sqnr_db` is the output's signal to quantization noise in decibels (infinite without any noise). `kept` says that
    the winner keeps the layer in a higher precision.
    """

    layer: str
    sqnr_db: float
    seconds_share: float
    kept: bool


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
