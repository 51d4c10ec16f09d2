"""The operators of a training step on the roofline: what they compute and move, how near that is to the ceilings."""

from __future__ import annotations

from rich.table import Table as Lines

from vivace.core.training.bound import StepRoofline, Work
from vivace.report.html.figure import Cell, Table, table
from vivace.report.html.words import cut, number
from vivace.report.layout import plain_table

PHASES = {"forward": "forward and loss", "backward": "backward", "update": "optimizer"}
MOST_TOLD, MOST_LISTED = 2, 40
"""Operators of each phase that the terminal has room for, and of all that the page lists."""

LONGEST, LEAST = 18, 0.01
"""Characters of an operator's name that the terminal has room for, and the least number that is told as it is."""


def roofline_table(found: StepRoofline) -> Lines:
    """For the terminal: each phase, with its operators that take longest."""
    lines = plain_table("operators of", "ms", "GFLOP/s", "of peak", "MB", "GB/s", "of rate", "bound")
    for phase, words in PHASES.items():
        bound = found.bound_of(phase)
        if bound is not None:
            lines.add_row(words, *_numbers(found.of_phase(phase)), bound.value)
        for one in [one for one in found.operators if one.phase == phase][:MOST_TOLD]:
            lines.add_row(f"  {cut(one.operator, LONGEST)}", *_numbers(one.work), one.bound.value)
    return lines


def operators_table(found: StepRoofline, name: str) -> Table:
    """For the page: every phase, and the operators that take longest."""
    rows: list[tuple[str | Cell, ...]] = []
    for phase, words in PHASES.items():
        bound = found.bound_of(phase)
        if bound is not None:
            rows.append((words, "all", *_cells(found.of_phase(phase)), bound.value))
    listed = found.operators[:MOST_LISTED]
    rows += [(PHASES[one.phase], one.operator, *_cells(one.work), one.bound.value) for one in listed]
    columns = ("phase", "operator", "calls", "ms (MEASURED)", "GFLOP/s", "of the ceiling", "MB moved (counted)", "GB/s",
               "of the bandwidth", "bound by")  # fmt: skip
    return table(columns, rows, f"The operators of a step of {name}, each on the roofline")


def bandwidths_table(found: StepRoofline) -> Table:
    """What this machine was measured to move, by the size of the working set."""
    rows: list[tuple[str | Cell, ...]] = [
        (
            Cell(number(one.working_set_bytes / 1e6), one.working_set_bytes),
            Cell(number(one.gigabytes_per_second), one.gigabytes_per_second),
            Cell(number(one.new_gigabytes_per_second), one.new_gigabytes_per_second),
        )
        for one in found.bandwidths
    ]
    columns = ("MB in use", "GB/s (MEASURED)", "GB/s into new tensors (MEASURED)")
    return table(columns, rows, "How fast this machine moves data, by how much of it is in use")


def _numbers(work: Work) -> tuple[str, ...]:
    counted = bool(work.flops)
    return (
        f"{work.seconds * 1e3:.3g}",
        _short(work.gflops) if counted else "-", f"{work.share_of_arithmetic:.0%}" if counted else "-",
        _short(work.moved_bytes / 1e6), _short(work.gigabytes_per_second), f"{work.share_of_memory:.0%}",
    )  # fmt: skip


def _short(value: float) -> str:
    return f"{value:.3g}" if value >= LEAST or not value else f"<{LEAST}"


def _cells(work: Work) -> tuple[Cell, ...]:
    values = (work.calls, work.seconds, work.gflops, work.share_of_arithmetic, work.moved_bytes,
              work.gigabytes_per_second, work.share_of_memory)  # fmt: skip
    return tuple(
        Cell(text, float(value)) for text, value in zip((str(work.calls), *_numbers(work)), values, strict=True)
    )
