"""The words for how much of the machine was used: operations a second, the roofline's floor, where the time goes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, Literal

from vivace.core.measurement import Interval


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
    this precision, on this `device` (cpu or cuda), on a processor with this count of threads; None where they were not.
    `floor_seconds` is the shortest time that those ceilings allow, `share` of the achieved time. `is_counted` is false
    where techniques changed the operations and could only be asked what they promise: all of it is PREDICTED then.
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
    device: str = "cpu"
    is_counted: bool = True


@dataclasses.dataclass(frozen=True)
class Overhead:
    """How far a tiny call is from its arithmetic: the delivered program's, where the call itself is most of the work.

    `call_seconds` is the confirmed median, MEASURED. `predicted_floor_seconds` is the least that the counted work takes
    at the ceilings measured here, PREDICTED. `empty_seconds` is MEASURED: a call of a program of the same `form` that
    takes and gives tensors of the same shapes and computes nothing, and `empty_share` its share of the delivered
    program's time in the same pair of processes. Both are None where that was not measured; `note` says why.

    >>> round(Overhead(14.2e-6, 0.31e-6, "onnx").over_floor)
    46
    """

    call_seconds: float
    predicted_floor_seconds: float
    form: str
    empty_seconds: float | None = None
    empty_share: Interval | None = None
    note: str = ""

    @property
    def over_floor(self) -> float | None:
        """The call's time over the floor; None where no arithmetic was counted."""
        return self.call_seconds / self.predicted_floor_seconds if self.predicted_floor_seconds else None


@dataclasses.dataclass(frozen=True)
class Compute:
    """The counted work of one call, and how fast the original and the winner did it.

    `flops` are those of products, a multiply-add being 2, counted in the original. `ceilings` says where the ceilings
    come from, or why there are none. `overhead` is there where overhead bounds the winner's call and it is tiny.
    """

    flops: float
    original: Reach
    winner: Reach
    ceilings: str
    overhead: Overhead | None = None


@dataclasses.dataclass(frozen=True)
class OperatorTime:
    """One operator of a program as it ran.

    `layers` are the module paths of the captured model that it does the work of, graph nodes where there is no path,
    and empty where the engine does not say. `seconds` are of one call of the program, MEASURED. `flops`, those that the
    original's layers take, and `moved_bytes` (weights read, activations read and written, in the precision that they
    have) are counted; None where they are not known.
    """

    operator: str
    layers: tuple[str, ...]
    seconds: float
    flops: float | None = None
    moved_bytes: float | None = None


@dataclasses.dataclass(frozen=True)
class Profile:
    """One program's call, operator by operator in the order of running.

    `form` is what ran. `call_seconds` is the median of a whole call while it was profiled, MEASURED. What operators do
    not take of it is the framework's: dispatch, allocation, threads that wait, and what recording takes. `note` says
    what could not be told.

    >>> Profile("torch", 1e-3, (OperatorTime("conv2d", ("stem",), 0.7e-3),)).overhead_seconds
    0.0003
    """

    form: str
    call_seconds: float
    operators: tuple[OperatorTime, ...]
    note: str = ""

    @property
    def overhead_seconds(self) -> float:
        """What of a call no operator takes; never below zero, for operators may run side by side."""
        return round(max(0.0, self.call_seconds - sum(one.seconds for one in self.operators)), 12)

    @staticmethod
    def from_json(node: Mapping[str, Any]) -> Profile:
        """Read what `dataclasses.asdict` made of one. Raises KeyError, TypeError."""
        operators = (OperatorTime(**{**one, "layers": tuple(one["layers"])}) for one in node["operators"])
        return Profile(**{**node, "operators": tuple(operators)})


@dataclasses.dataclass(frozen=True)
class Profiles:
    """The original before and the winner after; None where it was not profiled, and `note` says why.

    The original is the graph that was captured of it, without the Python of the user's own modules.
    """

    original: Profile | None = None
    winner: Profile | None = None
    note: str = ""


@dataclasses.dataclass(frozen=True)
class TimeShare:
    """What all operators of one name take of a call: `seconds` together, over `count` of them."""

    name: str
    seconds: float
    count: int


def seconds_by_operator(profile: Profile) -> tuple[TimeShare, ...]:
    """The time of each kind of operator, the longest first.

    >>> ran = [OperatorTime(name, (), seconds) for name, seconds in (("conv2d", 2.0), ("relu", 1.5), ("conv2d", 1.0))]
    >>> [(one.name, one.seconds, one.count) for one in seconds_by_operator(Profile("torch", 5.0, tuple(ran)))]
    [('conv2d', 3.0, 2), ('relu', 1.5, 1)]
    """
    return _shares((one.operator, one.seconds) for one in profile.operators)


def seconds_by_layer(profile: Profile) -> tuple[TimeShare, ...]:
    """The time of each layer, the longest first. Layers that run as one operator cannot be told apart: they are one
    entry, joined by "+", and what the engine names no layer for has an empty name.

    >>> fused = (OperatorTime("conv2d", ("a", "b"), 2.0), OperatorTime("reorder", (), 1.0))
    >>> [(one.name, one.seconds) for one in seconds_by_layer(Profile("onnx", 4.0, fused))]
    [('a+b', 2.0), ('', 1.0)]
    """
    return _shares(("+".join(one.layers), one.seconds) for one in profile.operators)


def _shares(parts: Iterable[tuple[str, float]]) -> tuple[TimeShare, ...]:
    found: dict[str, TimeShare] = {}
    for name, seconds in parts:
        before = found.get(name, TimeShare(name, 0.0, 0))
        found[name] = TimeShare(name, before.seconds + seconds, before.count + 1)
    return tuple(sorted(found.values(), key=lambda share: -share.seconds))


@dataclasses.dataclass(frozen=True)
class CoresCount:
    """So many copies of a program (`instances`) with so many threads each: its speed-up over one copy with one thread,
    MEASURED in the race."""

    cores: int
    instances: int
    threads: int
    speedup: Interval


@dataclasses.dataclass(frozen=True)
class Cores:
    """A plan on several counts of cores, and the part of a call that more cores do not shorten, which Amdahl's and
    Gustafson's laws need to give these speed-ups. `is_fitted` where two counts or more were timed, of which the fastest
    each is fitted; else one count implies it, and the interval is that of its speed-up. `plan_name` is the plan beside
    threads and copies."""

    plan_name: str
    counts: tuple[CoresCount, ...]
    amdahl_serial: Interval
    gustafson_serial: Interval
    is_fitted: bool
    kind: Literal["MEASURED"] = "MEASURED"
