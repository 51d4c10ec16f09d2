"""A layer: one product of a model's graph that a precision can be chosen for."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterable, Sequence

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
