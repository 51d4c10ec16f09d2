"""Figure 1: where the time of a training step goes, the original's and the plan's, and what bounds each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from vivace.core.training.bound import StepBound
from vivace.core.training.run import Diagnosis
from vivace.report.html import chart, svg
from vivace.report.html.figure import Cell, Figure, Table, table
from vivace.report.html.scale import Scale, linear
from vivace.report.html.words import cut, number, plural, show_seconds, time_unit
from vivace.report.training import PHASES, TrainingDocument
from vivace.report.training_page.operators import bandwidths_table, operators_table

NUMBER, KEY, TITLE = 1, "phases", "Where the time of a step goes"
LEFT, RIGHT = 10.0, 470.0
ROW, BAR, THIN = 58.0, 17.0, 5.0
NARROWEST = 24.0
"""How wide a piece of a bar must be to hold its own text."""
IDLE = "no operator ran"
Diagnoses = Sequence[tuple[str, Diagnosis]]


def figure(document: TrainingDocument) -> Figure:
    """Bars of the phases before and after, in milliseconds and as shares."""
    both = diagnoses(document)
    factor, unit = time_unit(found.step_seconds for _, found in both)
    steps = ", ".join(f"{plural(found.steps, 'step')} ({name})" for name, found in both)
    return Figure(
        NUMBER,
        KEY,
        TITLE,
        " ".join(_told(both)),
        (_times(both, factor, unit), _shares(both)),
        f"{steps}, with {plural(both[0][1].threads, 'thread')}, in a process of its own",
        "the median of each phase over these steps; waiting lasts until the batch is there. The grey bar is the part "
        "of all but waiting in which no operator of PyTorch ran, by its profiler, whose own cost is in it; what a "
        "compiler made of operators counts as one. FLOPs are counted in a step of the original, a multiplication and "
        "an addition as two; the ceiling is this machine's float32 rate with as many threads, measured too. "
        "Operators are timed one by one, the fastest of three steps; bytes are of every tensor that one reads and "
        "writes, a tensor read at the bandwidth of as much as was used since its last use (Williams, Waterman and "
        "Patterson 2009; Mattson et al. 1970)",
        f"MEASURED; {unit} of a step, and % of it",
        (_table(both, factor, unit), *_rooflines(both)),
        is_wide=True,
    )


def _rooflines(both: Diagnoses) -> Iterator[Table]:
    for name, found in both:
        if found.roofline is not None:
            yield operators_table(found.roofline, name)
    known = [found.roofline for _, found in both if found.roofline is not None]
    yield from (bandwidths_table(one) for one in known[:1])


def diagnoses(document: TrainingDocument) -> Diagnoses:
    """The original's, and the plan's where it was made."""
    after = document.diagnosis_after
    return [("original", document.diagnosis), *([] if after is None else [(document.plan_name, after)])]


def seconds_by_phase(found: Diagnosis) -> list[tuple[str, str, float]]:
    """Class, words and seconds of each phase that there is, in the order of a step."""
    return [
        (key, words, seconds)
        for key, words in PHASES.items()
        if (seconds := getattr(found, f"{key}_seconds")) or key != "whole"
    ]


def bound_words(found: Diagnosis) -> str:
    """What bounds a step: "input-bound"; both, where its steps cannot tell which of two."""
    return f"{found.bound.value}-bound" if found.rival is None else f"bound by {found.bound_words}"


def _told(both: Diagnoses) -> Iterator[str]:
    for name, found in both:
        subject = "The original" if name == "original" else f"With {cut(name, 120)}"
        yield (
            f"{subject}: {show_seconds(found.step_seconds)} a step, {bound_words(found)}: "
            f"{found.evidence.replace('`', '')}."
        )
        yield from (f"Note: {note}." for note in found.notes)
    bounds = [found.bound for _, found in both]
    if bounds[0] is StepBound.INPUT and len(bounds) > 1:
        yield "Input is still the bound." if bounds[1] is StepBound.INPUT else "Input is no longer the bound."
    yield f"The original's step counts {number(both[0][1].flops / 1e6)} MFLOP: {reached([found for _, found in both])}."
    if both[0][1].evaluate_seconds is not None:
        yield f"One evaluation takes {show_seconds(both[0][1].evaluate_seconds)}, outside of any step."
    if len(both) == 1:
        yield "No plan's step was diagnosed, so there is no after."


def reached(found: Sequence[Diagnosis]) -> str:
    """The share of the ceiling, before and after."""
    shares = [f"{one.share_of_ceiling:.2%}" for one in found if one.share_of_ceiling is not None]
    return f"{' → '.join(shares)} of the measured ceiling" if shares else "the ceiling was not measured (vivace doctor)"


def _times(both: Diagnoses, factor: float, unit: str) -> Markup:
    ends = [found.step_seconds * factor for _, found in both]
    floors = [found.floor_seconds for _, found in both if found.floor_seconds is not None]
    legend = [*_legend(both), *([("line", "limit", "counted operations at the ceiling")] if floors else [])]
    key, top = chart.legend(legend)
    scale = linear([*ends, *(floor * factor for floor in floors)], LEFT, RIGHT, include=(0.0,))
    rows = (_row(name, found, factor, unit, scale, top + ROW * n) for n, (name, found) in enumerate(both))
    marks = (_floor(found, factor, unit, scale, top + ROW * n) for n, (_, found) in enumerate(both))
    bottom = top + ROW * len(both)
    return svg.drawing(
        KEY,
        TITLE,
        "; ".join(f"{name}: {_listed(found)}" for name, found in both),
        chart.WIDTH,
        bottom + 34,
        key,
        chart.rules(scale, bottom, f"{unit} of a step (MEASURED)", 7, top=top, is_ratio=False),
        *rows,
        *marks,
    )


def _shares(both: Diagnoses) -> Markup:
    key, top = chart.legend(_legend(both))
    scale, bottom = Scale(0.0, 100.0, LEFT, RIGHT), top + ROW * len(both)
    rows = (
        _row(name, found, 100.0 / found.step_seconds if found.step_seconds else 0.0, "%", scale, top + ROW * n)
        for n, (name, found) in enumerate(both)
    )
    return svg.drawing(
        f"{KEY}-shares",
        "Share of each phase in a step",
        "; ".join(f"{name}: {bound_words(found)}, {_listed(found)}" for name, found in both),
        chart.WIDTH,
        bottom + 34,
        key,
        chart.rules(scale, bottom, "% of the step (MEASURED)", 6, top=top, is_ratio=False),
        *rows,
    )


def _legend(both: Diagnoses) -> list[tuple[str, str, str]]:
    found = {key: words for _, one in both for key, words, _ in seconds_by_phase(one)}
    return [*(("square", key, words) for key, words in found.items()), ("square", "overhead", IDLE)]


def _row(name: str, found: Diagnosis, factor: float, unit: str, scale: Scale, top: float) -> Markup:
    """One step: its name with the bound, the phases one after the other, and beneath what no operator took."""
    parts, begun = [], 0.0
    for key, words, seconds in seconds_by_phase(found):
        start, end = scale.at(begun), scale.at(begun + seconds * factor)
        tip = f"{name}: {words} {show_seconds(seconds)}"
        value = number(seconds * factor) if unit != "%" else f"{seconds * factor:.0f}%"
        fits = end - start > max(NARROWEST, svg.width_of(value) + 6)
        inside = [svg.text((start + end) / 2, top + 31, value, "inside", "middle")] if fits else []
        parts.append(svg.hover(tip, svg.rectangle(start, top + 18, end - start, BAR, key), *inside))
        begun += seconds * factor
    idle = scale.at(found.input_seconds * factor), scale.at((found.input_seconds + found.overhead_seconds) * factor)
    tip = f"{name}: {IDLE} in {show_seconds(found.overhead_seconds)}"
    head = f"{cut(name, 44)}: {show_seconds(found.step_seconds)}, {bound_words(found)}"
    thin = svg.rectangle(idle[0], top + 18 + BAR + 2, idle[1] - idle[0], THIN, "overhead")
    return svg.join(svg.text(LEFT, top + 13, head, "name"), *parts, svg.hover(tip, thin))


def _floor(found: Diagnosis, factor: float, unit: str, scale: Scale, top: float) -> Markup:
    if found.floor_seconds is None:
        return Markup()
    x = scale.at(found.floor_seconds * factor)
    tip = f"the counted operations take {number(found.floor_seconds * factor)} {unit} at the measured ceiling"
    return svg.hover(tip, svg.line(x, top + 15, x, top + 20 + BAR + THIN, "limit"))


def _listed(found: Diagnosis) -> str:
    told = ", ".join(f"{words} {show_seconds(seconds)}" for _, words, seconds in seconds_by_phase(found))
    return f"{told}; {IDLE} in {show_seconds(found.overhead_seconds)}"


def _table(both: Diagnoses, factor: float, unit: str) -> Table:
    rows: list[tuple[str | Cell, ...]] = []
    for name, found in both:
        listed = [(words, seconds) for _, words, seconds in seconds_by_phase(found)]
        for words, seconds in (
            *listed,
            (f"(of which {IDLE})", found.overhead_seconds),
            *([("(of which processes exchange)", found.communication_seconds)] if found.communication_seconds else []),
            ("the step", found.step_seconds),
        ):
            share = f"{seconds / found.step_seconds:.1%}" if found.step_seconds else "-"
            rows.append((name, words, Cell(number(seconds * factor), seconds), Cell(share, seconds)))
        floor = found.floor_seconds
        rows.append((
            name, "counted operations at the ceiling", Cell(number(None if floor is None else floor * factor), floor),
            Cell("-" if found.share_of_ceiling is None else f"{found.share_of_ceiling:.2%}", floor),
        ))  # fmt: skip
    return table(("step of", "phase", f"{unit} (MEASURED)", "of the step"), rows)
