"""Figure 7: every plan that was tried, its outcome and its reason, and what it took to prepare it."""

from __future__ import annotations

from collections import Counter

from markupsafe import Markup

from vivace.core.measurement import Outcome
from vivace.report.html import chart, svg
from vivace.report.html.chart import Bar
from vivace.report.html.figure import Cell, Figure, Table, absent, table
from vivace.report.html.scale import linear
from vivace.report.html.words import LONG, cut, interval, number, outcome_word, plural, show_seconds
from vivace.report.training import TrainingDocument
from vivace.report.training_page.trials import Tried, listed, no_trials

NUMBER, KEY, TITLE = 7, "tried", "Every plan that was tried"
LABELS, WIDE, MOST = 330.0, 960.0, 30


def figure(document: TrainingDocument) -> Figure:
    """Bars of the time to prepare each plan, and the table of all, or why there is none."""
    trials = listed(document)
    if not trials:
        return absent(NUMBER, KEY, TITLE, f"Nothing was tried: {no_trials(document)}.")
    counts = Counter(one.trial.outcome for one in trials)
    kept = sum(one.trial.accepted for one in trials)
    ended = ", ".join(f"{counts[one]} {outcome_word(one)}" for one in Outcome if counts[one])
    timed = [one for one in trials if one.trial.speedup is not None]
    return Figure(
        NUMBER,
        KEY,
        TITLE,
        f"{ended}; {kept} kept. {_paid(document)}",
        (_drawing(timed[:MOST]),) if timed else (),
        f"{plural(len(trials), 'trial')}; choosing and confirming took {show_seconds(document.search_seconds)}",
        "to prepare is to load the plan and take its first step; the proof before had already filled the compiler's "
        "cache. A plan whose steps are not the same is refused before it is timed; one is kept if even the lower end "
        "of its interval is clearly above 1",
        "MEASURED; speed-up of a step over the best plan before it, times; time to prepare, s",
        (_table(trials),),
        is_wide=True,
        is_sorted=True,
        hint="Click a column's head to sort.",
    )


def _paid(document: TrainingDocument) -> str:
    if document.break_even_steps is None:
        return "No time was shown to be saved, so nothing pays for choosing." if document.comparison else ""
    had = "as many" if document.steps >= document.break_even_steps else "fewer"
    enough = plural(document.break_even_steps, "step")
    return f"The time saved pays for choosing from {enough} on; this training had {had}: {document.steps:,}."


def _drawing(timed: list[Tried]) -> Markup:
    scale = linear([one.trial.prepare_seconds for one in timed], LABELS + 6, 860, include=(0.0,))
    rows = [
        Bar(f"#{one.number} + {cut(one.name, 52)}", one.trial.prepare_seconds, show_seconds(one.trial.prepare_seconds),
            one.class_, f"#{one.number} {one.name}: {show_seconds(one.trial.prepare_seconds)}; {one.ending}")
        for one in timed
    ]  # fmt: skip
    key, top = chart.legend((("square", "gain", "kept"), ("square", "dominated", "not clearly faster"),
                             ("square", "loss", "slower")))  # fmt: skip
    bottom = top + 16 * len(rows) + 4
    return svg.drawing(
        KEY, TITLE, "; ".join(f"{one.name} {show_seconds(one.trial.prepare_seconds)}" for one in timed), WIDE,
        bottom + 34, key, chart.rules(scale, bottom, "time to prepare a plan, s (MEASURED)", 8, top, is_ratio=False),
        chart.bars(rows, scale, top, LABELS, WIDE),
    )  # fmt: skip


def _table(trials: list[Tried]) -> Table:
    columns = ("#", "added", "plan", "outcome", "kept", "over the best before, x [95%] MEASURED", "prepare, s MEASURED",
               "reason")  # fmt: skip
    rows: list[tuple[str | Cell, ...]] = [
        (
            Cell(f"#{one.number}", one.number),
            cut(one.name, 160),
            cut(one.trial.plan_name, 300),
            outcome_word(one.trial.outcome),
            "kept" if one.trial.accepted else "-",
            Cell(interval(one.trial.speedup), one.trial.speedup.value if one.trial.speedup else None),
            Cell(number(one.trial.prepare_seconds) if one.trial.speedup else "-",
                 one.trial.prepare_seconds if one.trial.speedup else None),
            cut(one.trial.reason, LONG),
        )
        for one in trials
    ]  # fmt: skip
    return table(columns, rows)
