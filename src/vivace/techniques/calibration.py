"""The calls that a technique calibrates with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from vivace.core.work import Work
from vivace.data import samples


def first_calls(work: Work, most_samples: int) -> Iterator[Sequence[Tensor]]:
    """The first calibration calls, flat, that hold about this many samples; at least one call.

    A call without a batch axis is one sample. `work.calibration` must be there.
    """
    assert work.calibration is not None
    stored = samples.read(work.calibration)
    axes = [spec.batch_axis for spec in work.signature.inputs]
    count = 0
    for leaves in stored:
        yield leaves
        sizes = [leaf.shape[axis] for leaf, axis in zip(leaves, axes, strict=True) if axis is not None]
        count += sizes[0] if sizes else 1
        if count >= most_samples:
            return
