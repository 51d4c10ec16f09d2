"""What each technique of a winner is worth: the plan built up step by step, and the plan less each of them."""

from __future__ import annotations

import dataclasses

from vivace.core.measurement import Interval
from vivace.core.plan import Plan
from vivace.core.technique import Technique


@dataclasses.dataclass(frozen=True)
class Finding:
    """One configuration against the original: its speed-up from `restarts` fresh pairs of processes, or the reason why
    there is none.

    One pair of processes says nothing of what another pair would find: its interval is over the pair's blocks alone.
    """

    speedup: Interval | None
    restarts: int = 0
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of the waterfall: `plan` is the winner's techniques up to and including `technique`."""

    technique: Technique
    plan: Plan
    speedup: Interval | None
    restarts: int = 0
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """The winner less one technique: `plan` is what remains and `speedup` its own, against the original.

    `worth` is the winner's speed-up over that one. Its ends are those of two intervals that were measured apart,
    divided crosswise, so that it is rather too wide than too narrow.
    """

    technique: Technique
    plan: Plan
    speedup: Interval | None
    worth: Interval | None
    restarts: int = 0
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Attribution:
    """The waterfall in the order of the plan, and each technique left out, in the same order.

    `unfused` is the winner with its compiler told to fuse nothing; None where no compiler of it can be told so.
    Techniques act together: neither the steps' gains nor the worths need multiply to the winner's speed-up.
    """

    steps: tuple[Step, ...]
    left_out: tuple[LeftOut, ...]
    unfused: LeftOut | None = None
