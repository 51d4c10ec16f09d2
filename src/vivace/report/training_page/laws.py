"""What several processes made of a step, in words: beside one process, and by the laws of Amdahl and Gustafson."""

from __future__ import annotations

import dataclasses

from vivace.core.training.run import Count, Scaling
from vivace.devices.scaling import Law, fitted_serial, implied

MOST = 1e6
"""Counts and speed-ups beyond this are of a file that somebody made up."""


@dataclasses.dataclass(frozen=True)
class Serial:
    """The part of a step that more processes do not shorten, by each law, and how it came to be in words."""

    amdahl: float
    gustafson: float
    words: str


def serial_of(found: Scaling) -> Serial | None:
    """The serial part that measured speed-ups imply: fitted to copies of the model where at least two counts of them
    were timed, else what the one speed-up needs. None where nothing was gained, or, seen once, more
    than there are processes: no such part explains that."""
    if not 2 <= found.processes <= MOST or not 1 < found.speedup <= MOST:
        return None
    copies = {one.processes: one.speedup.value for one in found.counts if _is_copies(one)}
    if _is_too_much(found):
        return None
    if len(copies) < 2:
        laws = implied(found.processes, found.speedup)
        part = max(0.0, laws.serial)
        return Serial(part, part, f"serial part {laws.serial:.2g}, which this speed-up implies")
    by = {law: fitted_serial(law, copies) for law in Law}
    told = " and ".join(
        f"{one.value:.2g} [{one.low:.2g}, {one.high:.2g}] by {law.value.title()}" for law, one in by.items()
    )
    counts = ", ".join(map(str, sorted(copies)))
    return Serial(by[Law.AMDAHL].value, by[Law.GUSTAFSON].value, f"serial part fitted to {counts} copies: {told}")


def scaling_words(found: Scaling) -> str:
    """One line: the step of several processes beside that of one, and what the laws make of it."""
    how = "in blocks that alternate" if found.counts else "one after the other"
    both = (
        f"{found.step_seconds * 1e3:.3g} ms on {found.processes} processes and {found.one_seconds * 1e3:.3g} ms on one"
    )
    if _is_too_much(found):
        return (
            f"a step took {both}, one after the other: more than {found.processes} processes can give, so something "
            "else ran beside the one, and this is no speed-up"
        )
    told = f"a step took {both}: {found.speedup:.3g} times as fast, MEASURED {how}"
    serial = serial_of(found)
    if serial is None:
        return f"{told}; talking to each other costs more than these processes save"
    limit = f"at most {1 / serial.amdahl:.3g} times on any number" if serial.amdahl > 0 else "no limit"
    work = found.processes - serial.gustafson * (found.processes - 1)
    more = f"{work:.3g} times the work in the time of one"
    return f"{told}; {serial.words}: by Amdahl {limit}, by Gustafson {more}"


def _is_too_much(found: Scaling) -> bool:
    """Whether two times, seen one after the other, say more than so many processes can give."""
    return not found.counts and found.speedup > found.processes


def _is_copies(one: Count) -> bool:
    is_sensible = 2 <= one.processes <= MOST and 1 / MOST <= one.speedup.value <= MOST
    return is_sensible and one.layout == f"data={one.processes}"
