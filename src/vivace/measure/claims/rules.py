"""When enough blocks of a comparison were timed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from vivace.measure import stats


@dataclasses.dataclass(frozen=True)
class StopRule:
    """When to stop adding blocks: on the interval's width or on the budget, never on significance.

    `half_width` is of the 95% interval of the ratio, as a share. `min_blocks` (over all restarts) are needed for a
    claim. `max_blocks` are per restart. `max_seconds` bounds the blocks of all restarts together; a block that runs is
    finished, and the fewest blocks that make an interval are timed even of a model that takes seconds. `block_seconds`
    is the least length of a sub-block. `warm_seconds` caps the warm-up of one arm.
    """

    half_width: float = 0.01
    min_blocks: int = 10
    max_blocks: int = 60
    max_seconds: float = 20.0
    block_seconds: float = 0.02
    warm_seconds: float = 5.0

    def share(self, restarts: int) -> StopRule:
        """The rule of one restart among several: pooling narrows by the square root of their number."""
        return dataclasses.replace(
            self,
            half_width=self.half_width * math.sqrt(restarts),
            min_blocks=max(stats.FEWEST_FOR_INTERVAL, math.ceil(self.min_blocks / restarts)),
            max_seconds=self.max_seconds / restarts,
        )

    def is_met(self, log_ratios: Sequence[float], seconds: float) -> bool:
        """Whether to stop after these blocks and this time."""
        if not log_ratios:
            return False
        if len(log_ratios) >= self.max_blocks:
            return True
        if seconds >= self.max_seconds:
            return len(log_ratios) >= stats.FEWEST_FOR_INTERVAL
        if len(log_ratios) < self.min_blocks:
            return False
        found = stats.hodges_lehmann(log_ratios)
        return (found.high - found.low) / 2 <= self.half_width


ONE_PERCENT = StopRule()
