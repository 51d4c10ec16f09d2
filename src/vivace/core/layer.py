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
    no product of the layer is in integers in the winner's program.
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
class StoredWeight:
    """A layer whose weight lies in a program in another `form` than it came in, such as CSR or factors of a rank.

    Bytes are exact and count the numbers as they were when that was done, which is in float32: `dense_bytes` is what
    the whole weight took, `stored_bytes` what is stored for it. What a later precision does to them is not in there.
    """

    layer: str
    form: str
    dense_bytes: int
    stored_bytes: int

    def to_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` reads back."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(node: Mapping[str, Any]) -> StoredWeight:
        """Read what `to_json` wrote. Raises KeyError, and TypeError for anything but texts and whole numbers from 0."""
        found = StoredWeight(node["layer"], node["form"], node["dense_bytes"], node["stored_bytes"])
        counts = found.dense_bytes, found.stored_bytes
        if not all(isinstance(text, str) for text in (found.layer, found.form)):
            raise TypeError(f"a layer and the form of its weight are texts; received {node}")
        if not all(type(count) is int and count >= 0 for count in counts):
            raise TypeError(f"bytes are whole numbers from 0; received {node}")
        return found


@dataclasses.dataclass(frozen=True)
class StoredWeights:
    """All weights of a program that are stored in another form, one entry a layer, with the sums of their bytes."""

    layers: int
    dense_bytes: int
    stored_bytes: int
    each: tuple[StoredWeight, ...]

    @staticmethod
    def of(each: Sequence[StoredWeight]) -> StoredWeights | None:
        """The entries with their sums; None where there are none.

        >>> str(StoredWeights.of([StoredWeight("head", "CSR", 4096, 1024)]))
        '1,024 bytes for 4,096 in 1 layer (CSR)'
        """
        dense, stored = sum(one.dense_bytes for one in each), sum(one.stored_bytes for one in each)
        return StoredWeights(len(each), dense, stored, tuple(each)) if each else None

    def __str__(self) -> str:
        forms = ", ".join(dict.fromkeys(one.form for one in self.each))
        layers = f"{self.layers:,} layer{'' if self.layers == 1 else 's'}"
        return f"{self.stored_bytes:,} bytes for {self.dense_bytes:,} in {layers} ({forms})"


ZEROS_KEPT = "zeros kept dense"
"""The form of a pruned weight whose zeros are stored like any other number."""


def stored_after(before: Iterable[StoredWeight], after: Iterable[StoredWeight]) -> tuple[StoredWeight, ...]:
    """What is stored when weights that were changed `before` are changed once more: one entry a layer, whose dense
    bytes are the first ones.

    >>> pruned, sparse = StoredWeight("head", ZEROS_KEPT, 96, 96), StoredWeight("head", "CSR", 96, 40)
    >>> stored_after([pruned], [sparse])
    (StoredWeight(layer='head', form='CSR', dense_bytes=96, stored_bytes=40),)
    """
    found = {one.layer: one for one in before}
    for one in after:
        old = found.get(one.layer)
        if old is not None:
            forms = dict.fromkeys((*(form for form in old.form.split(", ") if form != ZEROS_KEPT), one.form))
            stored = old.stored_bytes - one.dense_bytes + one.stored_bytes
            found[one.layer] = StoredWeight(one.layer, ", ".join(forms), old.dense_bytes, stored)
        else:
            found[one.layer] = one
    return tuple(found.values())


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
