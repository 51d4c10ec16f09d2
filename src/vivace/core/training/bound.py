"""What bounds a training step, with the evidence: the work of its operators beside what the machine allows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from enum import Enum


class StepBound(Enum):
    """What most of a step's time goes to. KERNELS: operators that reach little of either ceiling, of arithmetic or of
    memory, though they take far longer than their launch."""

    INPUT = "input"
    OVERHEAD = "overhead"
    MEMORY = "memory"
    COMPUTE = "compute"
    COMMUNICATION = "communication"
    KERNELS = "kernels"


@dataclasses.dataclass(frozen=True)
class Bandwidth:
    """10^9 bytes a second, read and written, within so many bytes, MEASURED in the process that trains: of what is
    held, and written to a tensor that is made anew for each copy, whose pages the system may have to map."""

    working_set_bytes: int
    gigabytes_per_second: float
    new_gigabytes_per_second: float


@dataclasses.dataclass(frozen=True)
class Work:
    """Calls of operators in a step: how often, their seconds (MEASURED, the fastest of a few steps), the floating-point
    operations of their products and the bytes that they read and write (counted), and the least time that each of the
    two takes at the rates measured here."""

    calls: int
    seconds: float
    flops: float
    moved_bytes: float
    arithmetic_seconds: float
    memory_seconds: float

    @property
    def gflops(self) -> float:
        """10^9 operations a second."""
        return self.flops / self.seconds / 1e9 if self.seconds else 0.0

    @property
    def gigabytes_per_second(self) -> float:
        """10^9 bytes a second, of caches and memory."""
        return self.moved_bytes / self.seconds / 1e9 if self.seconds else 0.0

    @property
    def share_of_arithmetic(self) -> float:
        """Of the time, what its products need at the measured ceiling."""
        return self.arithmetic_seconds / self.seconds if self.seconds else 0.0

    @property
    def share_of_memory(self) -> float:
        """Of the time, what its bytes need at the bandwidth that was measured for working sets of their size."""
        return self.memory_seconds / self.seconds if self.seconds else 0.0


def joined(parts: Iterable[Work]) -> Work:
    """Several as one.

    >>> both = joined([Work(1, 2.0, 4e9, 0.0, 1.0, 0.0), Work(2, 2.0, 0.0, 6e9, 0.0, 1.0)])
    >>> both.gflops, both.gigabytes_per_second, both.share_of_memory
    (1.0, 1.5, 0.25)
    """
    found = list(parts)
    sums = (sum(getattr(one, field.name) for one in found) for field in dataclasses.fields(Work))
    return Work(*sums)


@dataclasses.dataclass(frozen=True)
class OperatorWork:
    """The calls of one operator in one phase of a step (forward, backward, update) that the same thing bounds."""

    phase: str
    operator: str
    bound: StepBound
    work: Work


@dataclasses.dataclass(frozen=True)
class StepRoofline:
    """The operators of a step on the roofline, the longest first.

    Bytes are of what each operator reads and writes, every tensor once, since operators that are not fused move each;
    of a table that is looked up only the rows. A tensor is read at the bandwidth of as many bytes as were used since it
    was used last, as in a cache that lets go what was used longest ago. `launch_seconds` is what an operator on a
    single number takes. `seconds_by_bound` splits a whole step. Source: Williams, Waterman and Patterson, "Roofline",
    Communications of the ACM 52(4), 2009; Mattson et al., IBM Systems Journal 9(2), 1970 (distances of reuse).
    """

    operators: tuple[OperatorWork, ...]
    bandwidths: tuple[Bandwidth, ...]
    launch_seconds: float
    seconds_by_bound: dict[str, float]

    def of_phase(self, phase: str) -> Work:
        """All that a phase does."""
        return joined(one.work for one in self.operators if one.phase == phase)

    def of_bound(self, bound: StepBound) -> Work:
        """All that the same thing bounds."""
        return joined(one.work for one in self.operators if one.bound is bound)

    def bound_of(self, phase: str) -> StepBound | None:
        """What bounds the most of a phase's time; None where it has no operators."""
        spent: dict[StepBound, float] = {}
        for one in self.operators:
            if one.phase == phase:
                spent[one.bound] = spent.get(one.bound, 0.0) + one.work.seconds
        return max(spent, key=lambda bound: spent[bound], default=None)
