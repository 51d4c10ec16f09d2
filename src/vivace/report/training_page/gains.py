"""Figure 2: what each technique that was tried gained, one on top of the other, and the whole as it was confirmed."""

from __future__ import annotations

from markupsafe import Markup

from vivace.core.measurement import Interval
from vivace.core.plan import BASELINE_NAME
from vivace.report.html import chart, svg
from vivace.report.html.chart import Panel
from vivace.report.html.figure import Cell, Figure, Table, absent, table
from vivace.report.html.scale import logarithmic
from vivace.report.html.words import cut, interval, number, outcome_word, plural
from vivace.report.training import StepTrialDocument, TrainingDocument
from vivace.report.training_page.trials import Tried, listed, no_trials

NUMBER, KEY, TITLE = 2, "gains", "What each technique gained"
ROW, LEFT, RIGHT = 34.0, 12.0, 338.0
MOST = 30
LEGEND = (
    ("square", "gain", "kept"),
    ("square", "dominated", "not clearly faster"),
    ("square", "loss", "slower"),
    ("square", "winner", "confirmed"),
)


def figure(document: TrainingDocument) -> Figure:
    """The waterfall of the trials and the confirmation beneath it, or why there is none."""
    trials = listed(document)
    if not trials:
        return absent(NUMBER, KEY, TITLE, f"There are no gains to show: {no_trials(document)}.")
    restarts = document.comparison.restarts if document.comparison else 0
    confirmed = f"; {plural(restarts, 'pair')} of the whole plan" if restarts else ""
    return Figure(
        NUMBER,
        KEY,
        TITLE,
        _said(document, trials),
        (_drawing(document, trials[:MOST]),),
        f"{plural(len(trials), 'trial')}, one pair of fresh processes each{confirmed}",
        "each trial adds a technique to the best plan before it; its steps are proved first and then timed in pairs "
        "against that plan, with all that feeding costs, 95% interval. A bar begins where the last one that was kept "
        "ended: this chain is no measurement, the last row is",
        "MEASURED; speed-up of a step, times",
        (_table(document, trials),),
    )


def _said(document: TrainingDocument, trials: list[Tried]) -> str:
    kept = [one.name for one in trials if one.trial.accepted]
    refused = [one.name for one in trials if one.trial.speedup is None]
    slow = [one.name for one in trials if one.trial.speedup is not None and not one.trial.accepted]
    told = [f"Kept: {', '.join(kept)}." if kept else "Nothing that was tried was kept."]
    told += [f"Timed and not clearly faster: {', '.join(slow)}."] if slow else []
    told += [f"Refused or failed before it was timed: {', '.join(refused)}."] if refused else []
    told += (
        ["The plan as a whole was confirmed as slower, so the original was trained."] if _was_dropped(document) else []
    )
    return " ".join([*told, f"And {len(trials) - MOST} more, in figure 7."] if len(trials) > MOST else told)


def _was_dropped(document: TrainingDocument) -> bool:
    return document.comparison is not None and not document.plan


def _drawing(document: TrainingDocument, trials: list[Tried]) -> Markup:
    key, top = chart.legend(LEGEND)
    confirmed = document.comparison.speedup if document.comparison else None
    starts = _starts([one.trial for one in trials])
    ends = [
        start * end
        for start, one in zip(starts, trials, strict=False)
        if (found := one.trial.speedup) is not None
        for end in (found.value, found.low, found.high)
    ]
    ends += [] if confirmed is None else [confirmed.value, confirmed.low, confirmed.high]
    rows = len(trials) + (confirmed is not None)
    bottom = top + 12 + ROW * rows
    panel = Panel(logarithmic([1.0, *ends], LEFT, RIGHT), chart.rows_to(bottom))
    drawn = [
        _row(panel, one, start, top + 8 + ROW * n) for n, (one, start) in enumerate(zip(trials, starts, strict=False))
    ]
    whole = [] if confirmed is None else [_whole(panel, confirmed, top + 8 + ROW * len(trials))]
    return svg.drawing(
        KEY,
        TITLE,
        "; ".join(f"{one.name} {interval(one.trial.speedup, unit='x')}" for one in trials)
        + ("" if confirmed is None else f"; confirmed as a whole {interval(confirmed, unit='x')}"),
        chart.WIDTH,
        bottom + 34,
        key,
        chart.rules(panel.x, bottom, "speed-up of a step over the original, times (MEASURED)", 7, top=top),
        *drawn,
        *whole,
    )


def _starts(trials: list[StepTrialDocument]) -> list[float]:
    """Where the bar of each trial begins: at the end of the plan that it was timed against, or of the last one that was
    kept where that is not known. The last entry is where all end."""
    found = [1.0]
    ends = {BASELINE_NAME: 1.0}
    for trial in trials:
        start = found[-1] = ends.get(trial.over_name, found[-1])
        end = start * trial.speedup.value if trial.speedup is not None else start
        ends[trial.plan_name] = end
        found.append(end if trial.accepted else start)
    return found


def _row(panel: Panel, one: Tried, start: float, top: float) -> Markup:
    label = svg.text(LEFT + 2, top + 8, f"#{one.number} + {cut(one.name, 56)}", "name")
    speed = one.trial.speedup
    if speed is None:
        why = f"{outcome_word(one.trial.outcome)}: {one.trial.reason}"
        return svg.hover(f"{one.name}: {cut(why, 300)}", label, svg.text(LEFT + 2, top + 22, cut(why, 76), "why"))
    tip = f"with {one.name}: {interval(speed, unit='x')} over the best before it; {one.ending}"
    begin, end = sorted((panel.x.at(start), panel.x.at(start * speed.value)))
    return svg.hover(
        tip,
        label,
        svg.rectangle(begin, top + 12, end - begin, 11, one.class_),
        panel.across(start * speed.low, start * speed.high, top + 17.5, "arm"),
        _value(panel, f"{number(speed.value)}x, {one.ending}", start * max(speed.high, 1.0), top + 21),
    )


def _whole(panel: Panel, speed: Interval, top: float) -> Markup:
    label = svg.text(LEFT + 2, top + 8, "the whole plan, confirmed", "name")
    begin, end = sorted((panel.x.at(1.0), panel.x.at(speed.value)))
    return svg.hover(
        f"the whole plan over the original: {interval(speed, unit='x')}",
        label,
        svg.rectangle(begin, top + 12, end - begin, 11, "winner"),
        panel.across(speed.low, speed.high, top + 17.5, "arm"),
        _value(panel, interval(speed, unit="x"), max(speed.high, 1.0), top + 21),
    )


def _value(panel: Panel, words: str, high: float, y: float) -> Markup:
    """A text at the right of what reaches up to `high`."""
    return svg.text(panel.x.at(high) + 5, y, words, "name")


def _table(document: TrainingDocument, trials: list[Tried]) -> Table:
    rows: list[tuple[str | Cell, ...]] = [
        (Cell(f"#{one.number}", one.number), one.name,
         Cell(interval(one.trial.speedup), one.trial.speedup.value if one.trial.speedup else None),
         one.ending, cut(one.trial.reason, 300))
        for one in trials
    ]  # fmt: skip
    if document.comparison is not None:
        speed = document.comparison.speedup
        rows.append(("-", "the whole plan over the original", Cell(interval(speed), speed.value), "confirmed", ""))
    return table(("#", "added to the best before it", "x [95%] (MEASURED)", "ended", "reason"), rows)
