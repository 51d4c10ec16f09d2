"""Figure 3: the confirmation block by block in time order, with the original against itself beneath."""

from __future__ import annotations

from vivace.core.measurement import ArmTimes, Comparison
from vivace.report.html import blocks
from vivace.report.html.figure import Cell, Figure, Table, absent, table
from vivace.report.html.words import interval, number, plural, time_unit
from vivace.report.training import TrainingDocument
from vivace.report.wording import show_bytes

NUMBER, KEY, TITLE = 3, "ratios", "How steady the speed-up is"


def figure(document: TrainingDocument) -> Figure:
    """Ratios of the blocks, or why nothing was confirmed."""
    found = document.comparison
    if found is None:
        return absent(NUMBER, KEY, TITLE, f"There are no blocks: {_unconfirmed(document)}.")
    count = sum(map(len, found.ratios))
    return Figure(
        NUMBER,
        KEY,
        TITLE,
        _said(document, found),
        (blocks.drawn("the plan", found, document.noise_ratios, found.noise_floor),),
        f"{plural(count, 'block')} in {plural(found.restarts, 'pair')} of fresh processes; {found.baseline.calls:,} "
        f"steps of the original, {found.candidate.calls:,} of the plan; {plural(len(document.noise_ratios), 'block')} "
        "of the original against itself",
        "a block is ABBA: its ratio is the median of the original's steps over the median of the plan's, with all that "
        "feeding them costs; the band is the 95% interval of the speed-up, and in the strip the noise floor",
        "MEASURED; ratio of the times of a step, times",
        (_table(found),),
    )


def _unconfirmed(document: TrainingDocument) -> str:
    if document.plan:
        return "the plan was not chosen by this run, so it was proved and not timed"
    return "no plan was left to be confirmed, so the original was trained"


def _said(document: TrainingDocument, found: Comparison) -> str:
    told = [f"{found.verdict.value}: a step is {interval(found.speedup, unit='x')} as fast."]
    arms = (("the original", found.baseline), ("the plan", found.candidate))
    unsteady = [name for name, times in arms if not times.steady]
    told += [f"UNSTEADY: {' and '.join(unsteady)} never settled while warming up."] if unsteady else []
    told += (
        [f"The smallest effect that this session may claim is {found.noise_floor:.1%}."]
        if (document.noise_ratios)
        else ["The original was not timed against itself."]
    )
    return " ".join([*told, *([f"Note: {found.note}."] if found.note else [])])


def _table(found: Comparison) -> Table:
    factor, unit = time_unit([found.baseline.median_seconds, found.candidate.median_seconds])
    rows = [_row(name, times, factor) for name, times in (("original", found.baseline), ("plan", found.candidate))]
    columns = ("step of", f"median, {unit}", f"p90, {unit}", f"p99, {unit}", "steps timed", "load and first step, s",
               "peak memory of the process")  # fmt: skip
    return table(columns, rows, "MEASURED")


def _row(name: str, times: ArmTimes, factor: float) -> tuple[str | Cell, ...]:
    seconds = (times.median_seconds, times.p90_seconds, times.p99_seconds)
    once = times.load_seconds + times.first_call_seconds
    return (
        name,
        *(Cell("not estimable" if v is None else number(v * factor), v) for v in seconds),
        Cell(f"{times.calls:,}", times.calls),
        Cell(number(once), once),
        Cell(show_bytes(times.peak_memory_bytes), times.peak_memory_bytes),
    )
