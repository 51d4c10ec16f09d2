"""Figure 9: every candidate over the time of the search, its outcome and its reason."""

from __future__ import annotations

import itertools
from collections import Counter

from markupsafe import Markup

from vivace.core.measurement import Outcome
from vivace.report.candidates import is_slower, scored_by, speed_of, winner_of
from vivace.report.html import chart, svg
from vivace.report.html.chart import Panel
from vivace.report.html.figure import Cell, Figure, Table, absent, table
from vivace.report.html.scale import linear, logarithmic
from vivace.report.html.words import LONG, cut, interval, number, outcome_word, plural, show_seconds
from vivace.report.results import ResultDocument, TrialDocument

NUMBER, KEY, TITLE = 9, "timeline", "The search, candidate by candidate"
MOST_COMMAND = 1500
WIDE = 960.0
LEGEND = (
    ("circle", "winner", "delivered"),
    ("circle", "front", "ok"),
    ("triangle", "loss", "SLOWER or not faster"),
    ("square", "refused", "refused for its quality"),
    ("cross", "failed", "did not run"),
)
REFUSED = (Outcome.QUALITY_FAILED, Outcome.QUALITY_UNKNOWN, Outcome.WRONG_OUTPUT, Outcome.NONFINITE)


def figure(document: ResultDocument) -> Figure:
    """When each candidate was tried and how it ended, or that none was."""
    trials = document.candidates
    if not trials:
        return absent(NUMBER, KEY, TITLE, "No candidate was tried: the time was used up before.")
    timed = [(number_, trial) for number_, trial in enumerate(trials, 1) if trial.ended_seconds is not None]
    counts = Counter(trial.outcome for trial in trials)
    ended = ", ".join(f"{counts[one]} {outcome_word(one)}" for one in Outcome if counts[one])
    slower = [f"#{number_}" for number_, trial in enumerate(trials, 1) if is_slower(trial)]
    told = f"Slower than the original: {', '.join(slower[:40])}{' and more' if len(slower) > 40 else ''}."
    none = "" if timed else "When each was tried is not in this result, so there is no drawing, only the table."
    return Figure(
        NUMBER,
        KEY,
        TITLE,
        " ".join([f"{ended}.", told if slower else "None was found to be slower than the original.", none]).strip(),
        (_drawing(document, timed),) if timed else (),
        f"{plural(len(trials), 'candidate')} in {show_seconds(document.wall_seconds)}",
        "a line from the beginning to the end of each trial, at its speed-up: confirmed where it was, else from the "
        "race, which stops early and only ranks. Predictions only order the candidates",
        "speed-up, times, MEASURED unless its column says PREDICTED; time since the search began, s",
        (_table(document),),
        is_wide=True,
        is_sorted=True,
        hint="A plan's name opens the command that tries it alone.",
    )


def _drawing(document: ResultDocument, timed: list[tuple[int, TrialDocument]]) -> Markup:
    won = winner_of(document)
    key, top = chart.legend(LEGEND, width=WIDE)
    speeds = [speed.value for _, trial in timed if (speed := speed_of(trial)) is not None and speed.value > 0]
    ends = [float(trial.ended_seconds or 0) for _, trial in timed]
    panel = Panel(
        linear([*ends, document.wall_seconds], 52, WIDE - 10, include=(0.0,)),
        logarithmic([1.0, *speeds], 196, top + 18),
    )
    best = list(itertools.accumulate((_reached(trial) for _, trial in _in_order(timed)), max, initial=1.0))
    times = [0.0, *(float(trial.ended_seconds or 0) for _, trial in _in_order(timed)), document.wall_seconds]
    steps = [
        (panel.x.at(t), panel.y.at(v))
        for (a, b), v in zip(itertools.pairwise(times), best, strict=True)
        for t in (a, b)
    ]
    return svg.drawing(
        KEY,
        TITLE,
        f"{len(timed)} candidates over {show_seconds(document.wall_seconds)}; the best usable one reached "
        f"{number(best[-1])}x.",
        WIDE,
        262,
        key,
        panel.axes("", "speed-up over the original, times (MEASURED)"),
        svg.line(52, panel.y.at(1.0), WIDE - 10, panel.y.at(1.0), "one"),
        svg.path(steps, "best"),
        svg.text(47, 232, "not timed", "tick", "end"),
        *(_trial(panel, number_, trial, trial is won) for number_, trial in timed),
        svg.text(WIDE / 2, 256, "time since the search began, s", "title", "middle"),
    )


def _in_order(timed: list[tuple[int, TrialDocument]]) -> list[tuple[int, TrialDocument]]:
    return sorted(timed, key=lambda entry: entry[1].ended_seconds or 0.0)


def _reached(trial: TrialDocument) -> float:
    speed = speed_of(trial)
    return speed.value if speed is not None and trial.outcome is Outcome.OK else 0.0


def _trial(panel: Panel, number_: int, trial: TrialDocument, is_winner: bool) -> Markup:
    speed = speed_of(trial)
    y = 228.0 if speed is None else panel.y.at(speed.value)
    ended = panel.x.at(trial.ended_seconds or 0.0)
    began = panel.x.at(trial.ended_seconds or 0.0 if trial.started_seconds is None else trial.started_seconds)
    shape, class_ = _look(trial, is_winner)
    ended_as = f"{outcome_word(trial.outcome)}, {interval(speed, unit='x')}"
    tip = f"#{number_} {trial.plan_name}: {ended_as}; {cut(trial.reason, 200)}"
    return svg.hover(
        tip, svg.line(began, y, ended, y, "trial"), svg.marker(shape, ended, y, class_, 4.6 if is_winner else 3.0)
    )


def _look(trial: TrialDocument, is_winner: bool) -> tuple[str, str]:
    if is_winner:
        return "circle", "winner"
    if trial.outcome in REFUSED:
        return "square", "refused"
    if trial.outcome is Outcome.NOT_FASTER or is_slower(trial):
        return "triangle", "loss"
    return ("circle", "front") if trial.outcome is Outcome.OK else ("cross", "failed")


def _table(document: ResultDocument) -> Table:
    scored = scored_by(document)
    columns = (
        "#", "plan", "outcome", "confirmed, x [95%] MEASURED", "race, x [95%] MEASURED", "standing, x MEASURED",
        "x PREDICTED", f"loss, {scored.unit}", "quality", "size, MB", "memory, MB", "build, s", "tried at, s", "reason",
    )  # fmt: skip
    rows: list[tuple[str | Cell, ...]] = []
    for number_, trial in enumerate(document.candidates, 1):
        loss = scored.of(trial.quality)
        confirmed = trial.confirmed.speedup if trial.confirmed else None
        rows.append(
            (
                Cell(f"#{number_}", number_),
                Cell(cut(trial.plan_name, 160), code=cut(trial.reproduce, MOST_COMMAND)),
                "SLOWER" if is_slower(trial) else outcome_word(trial.outcome),
                Cell(interval(confirmed), confirmed.value if confirmed else None),
                Cell(interval(trial.speedup), trial.speedup.value if trial.speedup else None),
                Cell(number(trial.standing), trial.standing),
                Cell(number(trial.predicted_speedup), trial.predicted_speedup),
                Cell(number(loss[0]), loss[0]) if loss else "-",
                trial.quality.verdict.value if trial.quality else "-",
                _megabytes(trial.size_bytes),
                _megabytes(trial.peak_memory_bytes),
                Cell(number(trial.build_seconds), trial.build_seconds),
                Cell(number(trial.started_seconds), trial.started_seconds),
                cut(trial.reason, LONG),
            )
        )
    return table(columns, rows)


def _megabytes(count: int | None) -> Cell:
    return Cell("-") if count is None else Cell(number(count / 1e6), count)
