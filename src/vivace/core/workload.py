"""What the user brings: a model, one example call, data, a metric and perhaps a loss."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vivace.core.errors import UsageError

if TYPE_CHECKING:
    import torch

MODEL_FILES = (".onnx", ".pt2", ".keras")


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
class Workload:
    """A model and what is needed to judge it.

    `model`: a torch.nn.Module, or the path of an .onnx, .pt2 (ExportedProgram) or .keras file.
    `inputs`: one example call; a tuple is positional, a dict is keyword, a single tensor is one positional argument.
    None (for a file only) takes the shapes that the file declares.
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

    def __post_init__(self) -> None:
        _check_model(self.model, self.inputs)
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
    def file(self) -> Path | None:
        """The model's file, when it was given as one."""
        return Path(self.model) if isinstance(self.model, str | Path) else None


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
    if inputs is None:
        raise UsageError("inputs is missing; give one example call, such as inputs=(x,) or inputs={'input_ids': ids}")


def _type_name(value: Any) -> str:
    return f"a {type(value).__module__}.{type(value).__qualname__}"
