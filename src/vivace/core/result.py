"""What an optimization gave: every trial with its outcome, and what won."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from vivace.core.attribution import Attribution
from vivace.core.compute import Compute, Cores, Profiles
from vivace.core.layer import FusedList, LayerSensitivity, StoredWeights
from vivace.core.measurement import Comparison, Interval, Outcome, SpeedVerdict
from vivace.core.plan import Plan
from vivace.core.quality import Quality


class Status(Enum):
    """How an optimization ended. The value is the phrase for people."""

    FASTER = "faster"
    NOTHING_FASTER = "nothing faster"
    QUALITY_UNCERTIFIED = "quality uncertified"

    @property
    def exit_code(self) -> int:
        """The command line's exit code: 0 faster, 3 nothing faster, 4 quality could not be certified."""
        return {Status.FASTER: 0, Status.NOTHING_FASTER: 3, Status.QUALITY_UNCERTIFIED: 4}[self]


class TrialStage(Enum):
    """Where in the search a plan was tried."""

    LADDER = "ladder"
    SEARCH = "search"
    FINALIST = "finalist"


@dataclasses.dataclass(frozen=True)
class Trial:
    """One plan that was tried, how it ended and what was seen.

    `speedup` is from the race (for ranking only); `standing` is the speed-up by way of the fastest candidate before it,
    which it was timed against directly; `confirmed` is from the confirmation run with fresh processes.
    `started_seconds` and `ended_seconds` are when it was tried, since the search began; None of an earlier session's.
    `predicted_speedup` is what the roofline said beforehand. `reproduce` is the command that tries this plan alone, but
    for its TARGET.
    """

    plan: Plan
    outcome: Outcome
    stage: TrialStage
    reason: str = ""
    speedup: Interval | None = None
    standing: float | None = None
    predicted_speedup: float | None = None
    quality: Quality | None = None
    confirmed: Comparison | None = None
    size_bytes: int | None = None
    peak_memory_bytes: int | None = None
    build_seconds: float = 0.0
    load_seconds: float = 0.0
    reproduce: str = ""
    started_seconds: float | None = None
    ended_seconds: float | None = None

    @property
    def name(self) -> str:
        """The plan's name."""
        return str(self.plan)

    @property
    def likely_speedup(self) -> float | None:
        """The best guess at its speed-up: its standing, or the value of its race; None when it was not timed."""
        raced = self.speedup.value if self.speedup is not None else None
        return raced if self.standing is None else self.standing

    @property
    def rank_speedup(self) -> float:
        """The speed-up that ranks it: its standing, or the lower bound of its race; 0 when it was not timed."""
        if self.standing is not None:
            return self.standing
        return self.speedup.low if self.speedup else 0.0

    def replace(self, **changes: Any) -> Trial:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


@dataclasses.dataclass(frozen=True)
class Rung:
    """One rung of the baseline ladder that was confirmed: what plain PyTorch gives without anything special."""

    plan: Plan
    comparison: Comparison


@dataclasses.dataclass(frozen=True)
class Result:
    """What an optimization gave: the winner's plan (empty: the original), all evidence, and where the artifact is.

    `comparison` is the original against the winner from the confirmation run; where the original was kept, the original
    as it was given against its captured graph, which the artifact holds: no gain is claimed of that. `best_rung` is the
    best plain rung of the ladder, confirmed in the same way. `conditions` is what was recorded with the numbers.
    `left_out` says why each technique that was not tried had nothing to offer here. `attribution` says what each
    technique of the winner is worth; None when the original was kept. `break_even_calls` is from how many calls on
    building and loading the winner have paid for themselves; None when they never do.
    `noise_ratios` are the blocks of the original against itself, in time order: the evidence of `noise_floor`.
    `profiles` say where the time of a call goes in the original and in the winner; None where it was not asked.
    `sensitivity` ranks layers by what int8 does to the answers; empty where nothing needed it.
    `fused` lists what one operator of the winner does for several layers, `compute` says how near the original and the
    winner came to the machine's ceilings; None where it was not asked.
    `stored_weights` are the winner's weights that are stored in another form, with their bytes; None where none is.
    `cores` are plans that were timed on one core and on more, with what Amdahl's and Gustafson's laws make of them.
    """

    name: str
    status: Status
    plan: Plan
    comparison: Comparison
    quality: Quality
    best_rung: Rung | None
    candidates: tuple[Trial, ...]
    noise_floor: float
    conditions: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    wall_seconds: float = 0.0
    artifact: Path | None = None
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)
    attribution: Attribution | None = None
    break_even_calls: int | None = None
    fused: FusedList | None = None
    compute: Compute | None = None
    noise_ratios: tuple[float, ...] = ()
    profiles: Profiles | None = None
    sensitivity: tuple[LayerSensitivity, ...] = ()
    stored_weights: StoredWeights | None = None
    cores: tuple[Cores, ...] = ()

    @property
    def speedup(self) -> Interval:
        """The winner against the original, from the confirmation run; 1 where the original was kept."""
        return self.comparison.speedup if self.status is Status.FASTER else Interval(1.0, 1.0, 1.0)

    @property
    def verdict(self) -> SpeedVerdict:
        """FASTER, SLOWER, SAME or UNDECIDED; SAME where the original was kept."""
        return self.comparison.verdict if self.status is Status.FASTER else SpeedVerdict.SAME
