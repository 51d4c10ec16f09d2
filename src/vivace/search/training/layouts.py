"""In which order layouts of several processes are tried: by a guess at their steps, which measurement then corrects."""

from __future__ import annotations

from collections.abc import Iterable

from vivace.core.training.run import Diagnosis
from vivace.distributed.layout import Layout

BYTES_PER_SECOND = 1e9
"""What processes of one machine exchange, by the order of its size: it orders layouts, and no number tells it."""


def ranked(layouts: Iterable[Layout], found: Diagnosis, places: int) -> list[Layout]:
    """Layouts by a guess at the seconds of a step, the promising ones first.

    The computing is divided by as many processes as have `places`, cores or devices; a pipeline of p stages and m
    micro-batches takes (m + p - 1) / m of that. Beside it goes what is exchanged: over copies gradients there and back
    (2 (n - 1) / n of the parameters), half as much more where parameters are split; over tensor parts and stages what
    the forward pass keeps.

    Sources: Rajbhandari et al., ZeRO, SC 2020 (arXiv:1910.02054), section 7; Huang et al., GPipe, NeurIPS 2019.
    """
    return sorted(layouts, key=lambda layout: guessed_seconds(layout, found, places))


def guessed_seconds(layout: Layout, found: Diagnosis, places: int) -> float:
    """What `ranked` goes by.

    >>> from types import SimpleNamespace as Some
    >>> step = Some(step_seconds=0.1, parameter_bytes=4e6, activation_bytes=1e6)
    >>> guessed_seconds(Layout(data=2), step, 2) < guessed_seconds(Layout(shard=2), step, 2)
    True
    """
    at_once = max(1, min(layout.processes, places))
    wait = (layout.micro + layout.pipeline - 1) / layout.micro if layout.pipeline > 1 else 1.0
    parameters = found.parameter_bytes / (layout.tensor * layout.pipeline)
    activations = found.activation_bytes / layout.copies
    exchanged = 2 * _others(layout.copies) * parameters * (1.5 if layout.shard > 1 else 1.0)
    exchanged += 2 * _others(layout.tensor) * activations + (activations if layout.pipeline > 1 else 0.0)
    return found.step_seconds / at_once * wait + exchanged / BYTES_PER_SECOND


def _others(count: int) -> float:
    return (count - 1) / count
