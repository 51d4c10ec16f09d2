"""The time to a target score as a function of the batch: the samples that runs needed, at the predicted rates."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vivace.core.errors import UsageError
from vivace.core.prediction.answer import Line, ToTarget
from vivace.core.prediction.work import Purpose
from vivace.devices.prediction.convergence import Convergence, fit_convergence


def target_of(runs: Sequence[tuple[float, float]], purpose: Purpose) -> Convergence | None:
    """The law that runs imply, each (batch, samples to the target); None without any.

    Raises UsageError for runs of what does not train, and those that tell no law.
    """
    if not runs:
        return None
    if purpose is not Purpose.TRAINING:
        raise UsageError(
            "runs was given for a Workload, whose calls reach no target; allowed is a vivace.Training or a "
            "vivace.Transformer"
        )
    return fit_convergence(runs)


def to_targets(
    lines: Sequence[Line], target: Convergence, batch: int, line_with: Callable[[Line, int], Line]
) -> tuple[ToTarget, ...]:
    """The time to the target on each line's devices, with its own `batch` and with each that was run, where such a step
    is predicted: `line_with` gives the line of another batch."""
    found = []
    for line in lines:
        for size in sorted({batch, *(int(one) for one in target.batches if one == int(one))}):
            rate = (line if size == batch else line_with(line, size)).samples_per_second
            if rate is not None:
                found.append(ToTarget(line.device, line.count, size, target.seconds(size, rate)))
    return tuple(found)
