"""What a search is expected to try, and what that takes: every number is PREDICTED, nothing was built or timed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from vivace.core.plan import Plan
from vivace.core.workload import Objective


@dataclasses.dataclass(frozen=True)
class Expected:
    """One plan, its predicted speed-up over the original, the seconds that trying it is likely to take, and the bytes
    of weights that a call is predicted to read."""

    plan: Plan
    speedup: float
    seconds: float
    weight_bytes: int = 0


@dataclasses.dataclass(frozen=True)
class Forecast:
    """The plans in the order in which they would be tried if each went as predicted, as many as the time allows.

    `seconds` is the time allowed and `total_seconds` what the whole search is likely to take of it. `disk_bytes` is
    what its programs would hold if each were as large as the original; an int8 one is smaller. `if_refused` has for
    the plans that may lose quality those with a training that wins it back: each is tried, while there is time, where
    the answers of the plan without it were refused, which nobody predicts. `objective` is what the search would make
    small.
    """

    name: str
    plans: tuple[Expected, ...]
    left_out: Mapping[str, str]
    notes: tuple[str, ...]
    seconds: float
    total_seconds: float
    disk_bytes: int
    if_refused: tuple[Expected, ...] = ()
    objective: Objective = Objective.LATENCY
