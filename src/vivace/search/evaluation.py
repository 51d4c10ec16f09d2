"""A part of the data made ready for judging: its calls on the disk, its targets, and what the original answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vivace.core.errors import UsageError
from vivace.data.samples import StoredOutputs, read_outputs
from vivace.measure.gate import check_scores

Metric = Callable[[Any, Any], Any]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One part of the data. `calls` is a folder of stored calls, `targets` has one entry a call (None without labels).

    `reference` is the file of the original's outputs, once it has given them. `sizes` are the samples in each call and
    `axes` the batch axis of each output.
    """

    name: str
    calls: Path
    targets: Sequence[Any]
    sizes: Sequence[int]
    reference: Path
    axes: Sequence[int | None]

    @property
    def samples(self) -> int:
        """How many samples it holds."""
        return sum(self.sizes)

    def original_outputs(self) -> StoredOutputs:
        """What the original answered."""
        return read_outputs(self.reference)

    def scores(self, outputs: StoredOutputs, metric: Metric) -> Tensor:
        """One score per sample, in order. Raises UsageError when the metric fails, gives NaN or the wrong number."""
        parts = [
            _call_metric(metric, value, target, size, f"batch {index} of the {self.name} part")
            for index, (value, target, size) in enumerate(zip(outputs.values(), self.targets, self.sizes, strict=True))
        ]
        return torch.cat(parts)


def _call_metric(metric: Metric, output: Any, target: Any, size: int, place: str) -> Tensor:
    try:
        scores = metric(output, target)
    except (
        TypeError,
        ValueError,
        RuntimeError,
        IndexError,
        KeyError,
        AttributeError,
        ArithmeticError,
        AssertionError,
    ) as error:
        name = getattr(metric, "__name__", type(metric).__name__)
        raise UsageError(
            f"the metric {name} failed on {place}: {type(error).__name__}: {error}; it is called as "
            "metric(output, target) with what the model returned and what the data gave"
        ) from error
    return check_scores(scores, size)
