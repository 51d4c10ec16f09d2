"""What a proof in the midst of a training says: a step from the run's own weights beside the original's."""

from __future__ import annotations

import dataclasses

from vivace.core.quality import QualityVerdict
from vivace.core.training.parity import Agreement


@dataclasses.dataclass(frozen=True)
class LaterProof:
    """A step of the plan that trains beside the original's, both from the weights, the optimizer's state and the
    attributes that the run had after `step` steps. It speaks for the steps after the proof before it (`since`).

    `tensors` were compared, `worst` is the one that is furthest off in proportion to what is allowed, None where there
    is none. `reference` says with what they were compared, `seconds` what that took.
    """

    plan: str
    step: int
    since: int
    verdict: QualityVerdict
    reason: str
    reference: str
    tensors: int
    worst: Agreement | None
    seconds: float
