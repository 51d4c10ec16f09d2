"""The words for quality: a budget, and the three answers of a gate."""

from __future__ import annotations

import dataclasses
import math
from enum import Enum

from vivace.core.errors import UsageError


class QualityVerdict(Enum):
    """HELD, NOT HELD, or CANNOT TELL (with the number of samples that would decide)."""

    HELD = "HELD"
    NOT_HELD = "NOT HELD"
    CANNOT_TELL = "CANNOT TELL"


class Gate(Enum):
    """How a budget is enforced: a certified bound, the point estimate, or agreement with the original's outputs."""

    STRICT = "strict"
    POINT = "point"
    FIDELITY = "fidelity"


@dataclasses.dataclass(frozen=True)
class Budget:
    """How much quality may be lost against the original.

    `drop` is in the units of the metric (0.01 is one point of accuracy), or with `relative=True` a share of the
    baseline's score. Without labels it is the share of decisions that may differ from the original's.

    Raises UsageError when it is negative, not finite, or a relative drop of 1 or more.
    """

    drop: float = 0.01
    relative: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.drop, int | float) or isinstance(self.drop, bool) or not math.isfinite(self.drop):
            raise UsageError(
                f"the budget's drop is {self.drop!r}; allowed is a finite number of 0 or more, "
                "such as 0.01 for one point of accuracy"
            )
        if self.drop < 0:
            raise UsageError(
                f"the budget's drop is {self.drop}, which is negative; give what may be lost as a number "
                "of 0 or more, such as 0.01"
            )
        if self.relative and self.drop >= 1:
            raise UsageError(f"a relative drop of {self.drop} would allow everything to be lost; give a share below 1")

    def margin(self, baseline_score: float) -> float:
        """The absolute drop that is allowed, given the original's score."""
        if not self.relative:
            return self.drop
        if abs(baseline_score) < 1e-6:
            raise UsageError(
                f"a relative budget has no meaning for a baseline score of {baseline_score:g}; "
                "give an absolute one: Budget(drop=...)"
            )
        return self.drop * abs(baseline_score)


@dataclasses.dataclass(frozen=True)
class Fidelity:
    """How close outputs are to the original's.

    `sqnr_db` is 20 log10(|reference| / |reference - output|), infinite when equal. `agreement` is the share of samples
    with the same top-1 decision (None when the output is not a vector of scores) and `agreement_low` its one-sided 95%
    lower bound (Clopper-Pearson). `worst_sample_sqnr_db` is the worst single sample. `samples` were compared.
    """

    sqnr_db: float
    cosine: float
    worst_sample_sqnr_db: float
    agreement: float | None
    agreement_low: float | None
    samples: int


@dataclasses.dataclass(frozen=True)
class Flip:
    """Samples whose decision changed, from the original's class to the candidate's.

    `better` and `worse` count those of them whose score rose or fell by the metric; None without one.
    """

    original: int
    candidate: int
    samples: int
    better: int | None = None
    worse: int | None = None


@dataclasses.dataclass(frozen=True)
class Decisions:
    """What was decided on each sample. `samples_by_class` counts the original's decisions, class by class; `flips` are
    those that the candidate changed, the most frequent first. Ties of the original's are not counted as changed."""

    samples_by_class: tuple[tuple[int, int], ...]
    flips: tuple[Flip, ...]


@dataclasses.dataclass(frozen=True)
class Quality:
    """The verdict on one candidate.

    `baseline`, `candidate` and `drop` are mean scores (None under the fidelity gate); `drop_upper` is the one-sided 95%
    upper bound of the drop; `margin` is what was allowed. `basis` says what the verdict rests on. `samples_needed` is
    set with CANNOT TELL, where some number of samples like these would decide; `samples_hoped` are as many as would, at
    80% power, if nothing is lost in truth. `decisions` are those of the confirmation, None for outputs that decide
    nothing.
    """

    verdict: QualityVerdict
    basis: str
    samples: int
    margin: float
    baseline: float | None = None
    candidate: float | None = None
    drop: float | None = None
    drop_upper: float | None = None
    samples_needed: int | None = None
    fidelity: Fidelity | None = None
    reason: str = ""
    decisions: Decisions | None = None
    samples_hoped: int | None = None
