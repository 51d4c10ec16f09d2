"""The lines on what was fused, on how much of the machine was used, on what calling alone costs and cores bring."""

from __future__ import annotations

from vivace.core.compute import Bound, Compute, Cores, CoresCount, Overhead
from vivace.core.layer import FusedList
from vivace.core.measurement import Interval
from vivace.report.wording import show_place

BOUND_WORDS = {
    Bound.ARITHMETIC: "bound by arithmetic",
    Bound.MEMORY: "bound by memory",
    Bound.OVERHEAD: "bound by overhead",
}


def fused_line(fused: FusedList | None) -> str:
    """How many groups of layers run as one operator, with the largest as an example; empty for None.

    >>> from vivace.core.layer import Fused
    >>> fused_line(FusedList((Fused("Convolution", ("conv1", "bn1", "relu")),)))
    'fused: 1 group, e.g. conv1+bn1+relu'
    """
    if fused is None:
        return ""
    count = len(fused.groups)
    if not count:
        return f"fused: {fused.note}" if fused.note else "fused: nothing"
    largest = max(fused.groups, key=lambda group: len(group.layers))
    note = f"; {fused.note}" if fused.note else ""
    return f"fused: {count} group{'s' if count > 1 else ''}, e.g. {largest}{note}"


def compute_line(compute: Compute | None) -> str:
    """The achieved rates of the original and the winner, and the winner's share of the ceiling; empty for None."""
    if compute is None:
        return ""
    winner = compute.winner
    guessed = "" if winner.is_counted else " (PREDICTED: its operations were not counted)"
    rates = f"compute: {_rate(compute.original.gflops)} -> {_rate(winner.gflops)} GFLOP/s{guessed}"
    if winner.share is None or winner.ceiling_gflops is None or winner.bound is None:
        return f"{rates}; ceiling {compute.ceilings}"
    ceiling = f"{_rate(winner.ceiling_gflops)} GFLOP/s {winner.precision}, {show_place(winner)}"
    return f"{rates}, {winner.share:.0%} of the ceiling ({ceiling}), {BOUND_WORDS[winner.bound]}"


def _rate(gflops: float) -> str:
    return f"{gflops:,.0f}" if gflops >= 100 else f"{gflops:.3g}"


def overhead_line(compute: Compute | None) -> str:
    """How far a tiny call is from its arithmetic, and what an empty call takes; empty where it was not asked.

    Every figure carries its own label, for the floor is PREDICTED and the calls are MEASURED.
    """
    found = None if compute is None else compute.overhead
    if found is None:
        return ""
    times = "" if found.over_floor is None else f" ({found.over_floor:.3g}x)"
    return (
        f"overhead: MEASURED {_microseconds(found.call_seconds)} a call, PREDICTED arithmetic floor "
        f"{_microseconds(found.predicted_floor_seconds)}{times}; {_empty(found)}"
    )


def _empty(found: Overhead) -> str:
    if found.empty_seconds is None or found.empty_share is None:
        return f"an empty call through {found.form} {found.note}"
    return (
        f"an empty call through {found.form} takes MEASURED {_microseconds(found.empty_seconds)}, "
        f"{found.empty_share.value:.0%} of a call beside it"
    )


def _microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:.3g} us"


def cores_words(found: Cores) -> str:
    """One line: the speed-ups, and what both laws make of them.

    >>> from vivace.core.measurement import Interval
    >>> exact = (CoresCount(2, 2, 1, Interval(1.6, 1.6, 1.6)),)
    >>> serial = Interval(0.25, 0.25, 0.25)
    >>> cores_words(Cores("p", exact, serial, serial, is_fitted=False)).partition(', MEASURED')[0]
    'cores: 1.6 [1.6, 1.6] times one thread on 2 (2 copies x 1)'
    """
    seen = ", ".join(f"{one.speedup} times one thread on {one.cores} ({_arranged(one)})" for one in found.counts)
    how = "fitted" if found.is_fitted else "which the one count implies"
    amdahl, gustafson = found.amdahl_serial, found.gustafson_serial
    limit = f"at most {1 / amdahl.value:.3g} times on any number" if amdahl.value > 0 else "no limit"
    most = max(one.cores for one in found.counts)
    work = most - gustafson.value * (most - 1)
    return (
        f"cores: {seen}, MEASURED in the race with {found.plan_name}; serial part, {how}: {_share(amdahl)} by Amdahl "
        f"({limit}), {_share(gustafson)} by Gustafson ({work:.3g} times the work in the time of one)"
    )


def _arranged(one: CoresCount) -> str:
    return f"{one.threads} threads" if one.instances == 1 else f"{one.instances} copies x {one.threads}"


def _share(one: Interval) -> str:
    return f"{one.value:.2g} [{one.low:.2g}, {one.high:.2g}]"
