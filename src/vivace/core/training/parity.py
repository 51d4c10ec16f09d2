"""What a proof of parity says: how every tensor of a step agrees with a reference, and what that allows to call it."""

from __future__ import annotations

import dataclasses
from enum import Enum

from vivace.core.measurement import Interval
from vivace.core.quality import QualityVerdict

FACTOR_OF_CHANCE = 4.0
FACTOR_OF_A_NUMBER = 1000.0
"""A difference of up to so many times that of the original's own two runs says nothing of a plan: of a tensor, and of a
single number, of which two runs may be close by luck (a ratio of two normal differences is above 1000 once in 1600)."""
THE_LOSS = "the loss itself"
"""The name of the number that a step returns: what a progress bar and a course show."""


class Kind(Enum):
    """What of a step was compared."""

    BATCH = "batch"
    GRADIENT = "gradient"
    UPDATE = "update"
    BUFFER = "buffer"
    COPY = "copy"
    STATE = "optimizer's state"
    LOSS = "loss"


@dataclasses.dataclass(frozen=True)
class Agreement:
    """One tensor of a plan's step, or its loss, against the reference's.

    `error` is the norm of the difference over the reference's norm, `noise` the same of the original's own step,
    `allowed` the largest error that the plan's class permits. `cosine` is of the angle between the two. `reason` says
    what is wrong where no numbers can: a gradient that is missing, a shape that differs, a value that is not finite.
    `again` is how far a second run of the original is from its first, where that was looked at.
    """

    kind: Kind
    name: str
    step: int
    cosine: float
    error: float
    noise: float
    allowed: float
    reason: str = ""
    again: float = 0.0

    @property
    def what(self) -> str:
        """What was compared: the kind and the name."""
        return self.name if self.kind is Kind.LOSS else f"{self.kind.value} of {self.name}"

    @property
    def is_undecided(self) -> bool:
        """Whether it is further off than allowed, and the original's own two runs are about as far apart."""
        factor = FACTOR_OF_A_NUMBER if self.kind is Kind.LOSS else FACTOR_OF_CHANCE
        return not self.holds and not self.reason and self.error <= factor * self.again

    @property
    def holds(self) -> bool:
        """Whether it is within what is allowed."""
        return not self.reason and self.error <= self.allowed

    def __str__(self) -> str:
        told = self.reason or (
            f"relative error {self.error:.2g} where {self.allowed:.2g} is allowed (the original's own: "
            f"{self.noise:.2g}; cosine {self.cosine:.4f})"
        )
        return f"{self.what} in step {self.step}: {told}"


@dataclasses.dataclass(frozen=True)
class Curve:
    """The losses of two runs that differ in the plan alone, over seeds.

    `original` and `plan` hold one tuple of losses for each seed. `difference` is the plan's mean loss over the last
    quarter of the steps less the original's, with its 90% interval over seeds; `margin` is how much is allowed.
    """

    original: tuple[tuple[float, ...], ...]
    plan: tuple[tuple[float, ...], ...]
    difference: Interval
    margin: float
    verdict: QualityVerdict


@dataclasses.dataclass(frozen=True)
class Parity:
    """Whether a plan trains as the original does: every tensor of some steps, then losses over seeds, then scores.

    `reference` says what the gradients were compared with. `agreements` are all tensors, the worst first. `curve` and
    `scores` are None where they were not asked for. `whole_step` says whether the plan takes the step as a whole, so
    that no loop of the user's own can hold it. `untold` agreements, which hold, are not among those of a proof that was
    read back from a file.
    """

    plan: str
    effect: str
    reference: str
    verdict: QualityVerdict
    reason: str
    agreements: tuple[Agreement, ...]
    curve: Curve | None = None
    scores: Curve | None = None
    notes: tuple[str, ...] = ()
    whole_step: bool = False
    untold: int = 0

    @property
    def culprits(self) -> tuple[Agreement, ...]:
        """The tensors that are further off than allowed, and than the original from itself."""
        return tuple(one for one in self.agreements if not one.holds and not one.is_undecided)
