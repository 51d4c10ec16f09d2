"""The words for how much of the machine was used: operations a second, the roofline's floor, and what bounds a call."""

from __future__ import annotations

import dataclasses
from enum import Enum


class Bound(Enum):
    """What most of a call's time goes to."""

    ARITHMETIC = "arithmetic"
    MEMORY = "memory"
    OVERHEAD = "overhead"


@dataclasses.dataclass(frozen=True)
class Reach:
    """How near one arm came to what the machine can do, from its confirmed median.

    `gflops` are the counted operations (10^9) a second that it achieved; a kernel that computes the same by fewer, such
    as Winograd's convolution, can exceed the ceiling. `ceiling_gflops` and `copy_gigabytes_per_second` were measured at
    this precision and count of threads; None where they were not. `floor_seconds` is the shortest time that those
    ceilings allow, `share` of the achieved time.
    """

    seconds: float
    gflops: float
    precision: str
    threads: int
    ceiling_gflops: float | None = None
    copy_gigabytes_per_second: float | None = None
    floor_seconds: float | None = None
    share: float | None = None
    bound: Bound | None = None


@dataclasses.dataclass(frozen=True)
class Compute:
    """The counted work of one call, and how fast the original and the winner did it.

    `flops` are those of products, a multiply-add being 2, counted in the original. `ceilings` says where the ceilings
    come from, or why there are none.
    """

    flops: float
    original: Reach
    winner: Reach
    ceilings: str
