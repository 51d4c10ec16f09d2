"""The lines on what was fused, and on how much of the machine was used."""

from __future__ import annotations

from vivace.core.compute import Bound, Compute, Reach
from vivace.core.layer import FusedList

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
    rates = f"compute: {compute.original.gflops:.3g} -> {winner.gflops:.3g} GFLOP/s"
    if winner.share is None or winner.ceiling_gflops is None or winner.bound is None:
        return f"{rates}; ceiling {compute.ceilings}"
    ceiling = f"{winner.ceiling_gflops:.3g} GFLOP/s {winner.precision}, {_threads(winner)}"
    return f"{rates}, {winner.share:.0%} of the ceiling ({ceiling}), {BOUND_WORDS[winner.bound]}"


def _threads(reach: Reach) -> str:
    return f"{reach.threads} thread{'s' if reach.threads > 1 else ''}"
