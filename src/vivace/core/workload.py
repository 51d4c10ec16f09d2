"""What the user brings: a model, one example call, data, a metric and perhaps a loss."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vivace.core.errors import UsageError

if TYPE_CHECKING:
    import torch

MODEL_FILES = (".onnx", ".pt2", ".keras")
MOST_SHAPES = 32
"""Of a mix: every one of them is walked in every block of a measurement."""


class Objective(Enum):
    """What is to become small: seconds a call, seconds a sample, peak memory, or bytes on disk."""

    LATENCY = "latency"
    THROUGHPUT = "throughput"
    MEMORY = "memory"
    SIZE = "size"


class Preset(Enum):
    """How thorough a search is: the seconds it takes where no time is given, and how much is confirmed."""

    QUICK = "quick"
    DEFAULT = "default"
    THOROUGH = "thorough"

    @property
    def seconds(self) -> float:
        """The whole time where none is given."""
        return {Preset.QUICK: 60.0, Preset.DEFAULT: 300.0, Preset.THOROUGH: 1800.0}[self]

    @property
    def restarts(self) -> int:
        """Fresh pairs of processes for each confirmation; three are the least for a number that leaves the tool."""
        return {Preset.QUICK: 3, Preset.DEFAULT: 3, Preset.THOROUGH: 5}[self]

    @property
    def finalists(self) -> int:
        """How many plans are confirmed at the most."""
        return {Preset.QUICK: 2, Preset.DEFAULT: 3, Preset.THOROUGH: 5}[self]


@dataclasses.dataclass(frozen=True)
class Mix:
    """Which shape each of some calls has: `shapes` holds its number for each call, `weights` the share of each shape
    in all calls that will be made, by its number; they sum to 1.

    Raises ValueError for a number that is none of the weights', and where no weight is above 0.
    """

    shapes: tuple[int, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if not all(0 <= shape < len(self.weights) for shape in self.shapes) or not sum(self.weights) > 0:
            raise ValueError(f"shapes {self.shapes} and weights {self.weights} do not fit together")

    def walk(self, start: int, calls: int) -> Mix:
        """The mix of this many calls when these are walked in a circle from number `start` on.

        >>> Mix((0, 0, 1), (0.7, 0.3)).walk(2, 4).shapes
        (1, 0, 0, 1)
        """
        return Mix(tuple(self.shapes[(start + i) % len(self.shapes)] for i in range(calls)), self.weights)

    def first_of_each(self) -> list[int]:
        """The number of the first call of each shape that occurs.

        >>> Mix((0, 0, 1), (0.7, 0.3)).first_of_each()
        [0, 2]
        """
        return sorted(self.shapes.index(shape) for shape in set(self.shapes))

    def to_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` reads back."""
        return {"shapes": list(self.shapes), "weights": list(self.weights)}

    @staticmethod
    def from_json(node: Mapping[str, Any] | None) -> Mix | None:
        """Read what `to_json` wrote; None for None. Raises ValueError, TypeError and the like for anything else."""
        return None if node is None else Mix(tuple(map(int, node["shapes"])), tuple(map(float, node["weights"])))


@dataclasses.dataclass(frozen=True)
class Workload:
    """A model and what is needed to judge it.

    `model`: a torch.nn.Module, or the path of an .onnx, .pt2 (ExportedProgram) or .keras file.
    `inputs`: one example call; a tuple is positional, a dict is keyword, a single tensor is one positional argument.
    None (for a file only) takes the shapes that the file declares.
    `mix`, in the place of `inputs`: a list of pairs (inputs, weight), one for each shape that calls come in, with how
    often it does. Plans are timed on calls in these proportions and must be right for every one of the shapes.
    `data`: an iterable of (inputs, target) batches, read once and split into calibrate, select and confirm parts.
    `metric`: (output, target) -> one score per sample, higher is better.
    `loss`: (output, target) -> scalar tensor, lower is better, that gradients flow through. Pruned weights are trained
    towards the original's answers to the calibrate part of the data; with a loss, by it and its labels as well.

    Raises UsageError when a field cannot be used.
    """

    model: torch.nn.Module | str | Path
    inputs: Any = None
    data: Iterable[Any] | None = None
    metric: Callable[[Any, Any], Any] | None = None
    name: str = "model"
    loss: Callable[[Any, Any], Any] | None = None
    mix: Sequence[tuple[Any, float]] = ()

    def __post_init__(self) -> None:
        _check_mix(self.mix, self.inputs)
        _check_model(self.model, self.mix[0][0] if self.mix else self.inputs)
        if self.data is not None and not isinstance(self.data, Iterable):
            raise UsageError(f"data is {_type_name(self.data)}; allowed is an iterable of (inputs, target) batches")
        if self.metric is not None and not callable(self.metric):
            raise UsageError(
                f"metric is {_type_name(self.metric)}; allowed is a function "
                "(output, target) -> one score per sample, such as vv.metrics.accuracy"
            )
        if self.metric is not None and self.data is None:
            raise UsageError(
                "a metric was given without data; give data=pairs of (inputs, target), or leave the "
                "metric out to be judged by fidelity to the original's outputs"
            )
        self._check_loss()
        if not isinstance(self.name, str) or not self.name.strip():
            raise UsageError(f"name is {self.name!r}; allowed is a short text such as 'digits-cnn'")

    def _check_loss(self) -> None:
        if self.loss is not None and not callable(self.loss):
            raise UsageError(
                f"loss is {_type_name(self.loss)}; allowed is a function (output, target) -> scalar tensor, such as "
                "torch.nn.functional.cross_entropy"
            )
        if self.loss is not None and self.data is None:
            raise UsageError(
                "a loss was given without data; give data=pairs of (inputs, target), or leave the loss out: pruned "
                "weights are then trained towards the original's answers alone"
            )

    @property
    def examples(self) -> list[Any]:
        """One example call for each shape, as it was given; none for a file whose own shapes are taken."""
        if self.mix:
            return [inputs for inputs, _ in self.mix]
        return [] if self.inputs is None else [self.inputs]

    @property
    def weights(self) -> tuple[float, ...]:
        """The share of each of the shapes in all calls; they sum to 1."""
        total = sum(weight for _, weight in self.mix)
        return tuple(weight / total for _, weight in self.mix) or (1.0,)

    @property
    def file(self) -> Path | None:
        """The model's file, when it was given as one."""
        return Path(self.model) if isinstance(self.model, str | Path) else None


def _check_mix(mix: Any, inputs: Any) -> None:
    if not isinstance(mix, tuple | list):
        raise UsageError(f"mix is {_type_name(mix)}; allowed is a list of pairs (inputs, weight)")
    if mix and inputs is not None:
        raise UsageError("both inputs and mix were given; give inputs for one shape, or mix=[(inputs, weight), ...]")
    if len(mix) > MOST_SHAPES:
        raise UsageError(f"mix has {len(mix)} shapes; allowed are up to {MOST_SHAPES}: give those that matter most")
    for number, entry in enumerate(mix):
        if not isinstance(entry, tuple | list) or len(entry) != 2 or entry[0] is None:
            raise UsageError(
                f"entry {number} of mix is {_type_name(entry)}; allowed is a pair (inputs, weight), such as ((x,), 0.7)"
            )
        weight = entry[1]
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise UsageError(
                f"entry {number} of mix has the weight {weight!r}; allowed is a number of 0 or more, the share of calls"
            )
    if mix and not sum(weight for _, weight in mix) > 0:
        raise UsageError("the weights of mix sum to 0; give at least one shape a weight above 0")


def _check_model(model: Any, inputs: Any) -> None:
    if isinstance(model, str | Path):
        path = Path(model)
        if path.suffix not in MODEL_FILES:
            raise UsageError(f"model is the path {path}; allowed endings are {', '.join(MODEL_FILES)}")
        if not path.is_file():
            raise UsageError(f"there is no model file at {path}; check the path")
        return
    if not callable(getattr(model, "forward", None)) or not hasattr(model, "parameters"):
        raise UsageError(
            f"model is {_type_name(model)}; allowed are a torch.nn.Module and the path of a file ending "
            f"in {', '.join(MODEL_FILES)}"
        )
    if type(model).__module__.startswith("torch.jit"):
        raise UsageError(
            f"model is {_type_name(model)}, which TorchScript made; allowed are the torch.nn.Module that it was traced "
            f"or scripted from, and the path of a file ending in {', '.join(MODEL_FILES)}"
        )
    if inputs is None:
        raise UsageError("inputs is missing; give one example call, such as inputs=(x,) or inputs={'input_ids': ids}")


def _type_name(value: Any) -> str:
    return f"a {type(value).__module__}.{type(value).__qualname__}"
