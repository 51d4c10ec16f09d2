"""Figure 5: how the training went: the loss step by step, the score after each epoch, and how long steps took."""

from __future__ import annotations

import itertools

from markupsafe import Markup

from vivace.core.training.course import Span
from vivace.report.html import chart, svg
from vivace.report.html.chart import Panel
from vivace.report.html.figure import Cell, Figure, Table, absent, table
from vivace.report.html.scale import Scale, fitting, linear
from vivace.report.html.words import number, plural, show_seconds, time_unit
from vivace.report.training import TrainingDocument

NUMBER, KEY, TITLE = 5, "course", "How the training went"
BOTTOM = 222.0


def figure(document: TrainingDocument) -> Figure:
    """Curves of what is there, or that there was no step."""
    spans, scores = document.course.spans, [score for score in document.scores if score is not None]
    drawings = [*([_losses(document)] if spans else []), *([_scores(document)] if scores else []),
                *([_steps(document)] if any(span.step_seconds for span in spans) else [])]  # fmt: skip
    if not drawings:
        return absent(NUMBER, KEY, TITLE, "There is no course: this run took no step, or kept none of its losses.")
    longest = max((span.steps for span in spans), default=0)
    thinned = f"{plural(len(spans), 'span')} of {plural(longest, 'step')}" if longest > 1 else "every step"
    return Figure(
        NUMBER,
        KEY,
        TITLE,
        _said(document),
        tuple(drawings),
        f"{plural(sum(span.steps for span in spans), 'step')} and {plural(len(document.losses), 'epoch')} in one run; "
        f"shown are {thinned}",
        "one seed. Steps that follow one another are joined two by two whenever there are 500 spans, so none is left "
        "out: the line is the mean loss of a span, the band reaches from its lowest to its highest. The time of a step "
        "is the mean over the half second or so in which it was asked for, waiting for its batch included; scores are "
        "made outside of it",
        f"MEASURED; loss and score in the job's own units, time in s, time of a step in {_unit(spans)[1]}",
        (_epochs(document), *([_table(spans)] if spans else [])),
        is_wide=True,
    )


def _said(document: TrainingDocument) -> str:
    told = []
    if document.losses:
        told.append(
            f"The mean loss of an epoch went from {number(document.losses[0])} to {number(document.losses[-1])}."
        )
    scores = [score for score in document.scores if score is not None]
    told += [f"The last score is {number(scores[-1])}, the best {number(max(scores))}."] if scores else []
    until = _until(document)
    if document.reached is not None and until is not None:
        told.append(f"A score of {number(until)} was asked for and {'' if document.reached else 'not '}reached.")
    told.append(
        f"{plural(document.steps, 'step')} took {show_seconds(document.seconds)} with their scores and checkpoints."
    )
    if document.resumed_steps:
        told.append(
            f"The first {plural(document.resumed_steps, 'step')} were made before it was resumed, and are not here."
        )
    return " ".join(told)


def _until(document: TrainingDocument) -> float | None:
    options = document.conditions.get("options")
    found = options.get("until") if isinstance(options, dict) else None
    return found if isinstance(found, int | float) else None


def _across(spans: tuple[Span, ...]) -> Scale:
    first = float(spans[0].step - spans[0].steps)
    return linear([first, float(spans[-1].step)], 62, 470, include=(first, float(spans[-1].step)))


def _losses(document: TrainingDocument) -> Markup:
    spans = document.course.spans
    means = bool(document.losses) and len(document.losses) == len(document.course.epochs)
    key, top = chart.legend((("line", "winner curve-key", "loss of a span of steps, and its range"),
                             *([("diamond", "original", "mean of an epoch")] if means else [])))  # fmt: skip
    ends = [end for span in spans for end in (span.lowest, span.highest)]
    panel = Panel(_across(spans), fitting(ends, BOTTOM, top + 20))
    x, y = panel.x.at, panel.y.at
    outline = [*((x(s.step), y(s.highest)) for s in spans), *((x(s.step), y(s.lowest)) for s in reversed(spans))]
    band = svg.tag("polygon", points=" ".join(f"{a:.1f},{b:.1f}" for a, b in outline), class_="band")
    marks = [
        svg.hover(f"epoch {number_} (step {end.step}, {show_seconds(end.elapsed_seconds)}): mean loss {number(loss)}",
                  svg.marker("diamond", x(end.step), y(loss), "original", 3.0))
        for number_, (end, loss) in enumerate(zip(document.course.epochs, document.losses, strict=False), 1)
    ] if means else []  # fmt: skip
    return svg.drawing(
        f"{KEY}-loss", "Loss by step", f"From {number(spans[0].loss)} to {number(spans[-1].loss)}.", chart.WIDTH,
        BOTTOM + 34, key, panel.axes("step", "loss (MEASURED)"), band,
        svg.path([(x(span.step), y(span.loss)) for span in spans], "winner line"),
        *(_dot(panel, span, span.loss, _tip(span)) for span in spans), *marks,
    )  # fmt: skip


def _tip(span: Span) -> str:
    many = f"steps {span.step - span.steps + 1} to {span.step}" if span.steps > 1 else f"step {span.step}"
    range_ = f" [{number(span.lowest)} to {number(span.highest)}]" if span.steps > 1 else ""
    each = "" if span.step_seconds is None else f", {show_seconds(span.step_seconds)} a step"
    return f"{many}: loss {number(span.loss)}{range_}{each}, after {show_seconds(span.elapsed_seconds)}"


def _dot(panel: Panel, span: Span, value: float, tip: str) -> Markup:
    return svg.hover(tip, svg.marker("circle", panel.x.at(span.step), panel.y.at(value), "winner spot", 3.0))


def _scores(document: TrainingDocument) -> Markup:
    """Scores by the time of training where that is known, else by epoch."""
    epochs = document.course.epochs
    is_timed = len(epochs) == len(document.scores)
    places = (
        [end.elapsed_seconds for end in epochs] if is_timed else [float(n + 1) for n in range(len(document.scores))]
    )
    points = [
        (place, score, epoch)
        for epoch, (place, score) in enumerate(zip(places, document.scores, strict=True), 1)
        if score is not None
    ]
    until = _until(document)
    key, top = chart.legend((("diamond", "original", "score after an epoch"),
                             *([("line", "limit", "asked for")] if until is not None else [])))  # fmt: skip
    values = [score for _, score, _ in points] + ([] if until is None else [until])
    panel = Panel(linear([place for place, *_ in points], 62, 470, include=(0.0,)), linear(values, BOTTOM, top + 20))
    limit = [] if until is None else [svg.line(62, panel.y.at(until), 470, panel.y.at(until), "limit")]
    return svg.drawing(
        f"{KEY}-score", "Score after each epoch",
        "; ".join(f"epoch {epoch} {number(score)}" for _, score, epoch in points[-12:]), chart.WIDTH, BOTTOM + 34, key,
        panel.axes("time of training, s (MEASURED)" if is_timed else "epoch", "score (MEASURED), higher is better"),
        *limit,
        svg.path([(panel.x.at(place), panel.y.at(score)) for place, score, _ in points], "original line"),
        *(svg.hover(f"epoch {epoch}: score {number(score)}" + (f" after {show_seconds(place)}" if is_timed else ""),
                    svg.marker("diamond", panel.x.at(place), panel.y.at(score), "original", 3.0))
          for place, score, epoch in points),
    )  # fmt: skip


def _unit(spans: tuple[Span, ...]) -> tuple[float, str]:
    return time_unit(sorted(span.step_seconds for span in spans if span.step_seconds is not None)[-1:] or [1e-3])


def _steps(document: TrainingDocument) -> Markup:
    spans = tuple(span for span in document.course.spans if span.step_seconds)
    factor, unit = _unit(spans)
    before, after = document.diagnosis.step_seconds * factor, document.diagnosis_after
    key, top = chart.legend((("line", "winner curve-key", "this training"), ("line", "between", "original, diagnosed"),
                             *([("line", "one", "plan, diagnosed")] if after is not None else [])))  # fmt: skip
    values = [(span.step_seconds or 0.0) * factor for span in spans]
    lines = [(before, "between"), *([(after.step_seconds * factor, "one")] if after is not None else [])]
    panel = Panel(_across(document.course.spans), fitting([*values, *(v for v, _ in lines)], BOTTOM, top + 20))
    stairs = [
        (panel.x.at(place), panel.y.at(value))
        for span, value in zip(spans, values, strict=True)
        for place in (span.step - span.steps, span.step)
    ]
    return svg.drawing(
        f"{KEY}-steps", "Time of a step in this training",
        f"The original's step took {number(before)} {unit} in its diagnosis.", chart.WIDTH, BOTTOM + 34, key,
        panel.axes("step", f"time of a step, {unit} (MEASURED)"),
        *(svg.line(62, panel.y.at(value), 470, panel.y.at(value), class_) for value, class_ in lines),
        svg.path(stairs, "winner line"),
        *(_dot(panel, span, value, _tip(span)) for span, value in _changes(spans, values)),
    )  # fmt: skip


def _changes(spans: tuple[Span, ...], values: list[float]) -> list[tuple[Span, float]]:
    """Spans whose time differs from that of the span before; those that were asked for together share one."""
    before = itertools.chain([None], values)
    return [(span, value) for span, value, last in zip(spans, values, before, strict=False) if value != last]


def _epochs(document: TrainingDocument) -> Table:
    rows: list[tuple[str | Cell, ...]] = []
    for number_, loss, score, end in itertools.zip_longest(
        range(1, len(document.losses) + 1), document.losses, document.scores, document.course.epochs
    ):
        rows.append((
            Cell(str(number_), number_), Cell(number(loss), loss), Cell(number(score), score),
            Cell(str(end.step) if end else "-", end.step if end else None),
            Cell(number(end.elapsed_seconds) if end else "-", end.elapsed_seconds if end else None),
            Cell(number(end.score_seconds) if end else "-", end.score_seconds if end else None),
        ))  # fmt: skip
    return table(
        ("epoch", "mean loss", "score", "steps so far", "time so far, s", "score took, s"), rows, "epochs (MEASURED)"
    )


def _table(spans: tuple[Span, ...]) -> Table:
    factor, unit = _unit(spans)
    rows: list[tuple[str | Cell, ...]] = [
        (Cell(str(span.step), span.step), Cell(str(span.steps), span.steps), Cell(number(span.loss), span.loss),
         Cell(number(span.lowest), span.lowest), Cell(number(span.highest), span.highest),
         Cell(number(None if span.step_seconds is None else span.step_seconds * factor), span.step_seconds),
         Cell(number(span.elapsed_seconds), span.elapsed_seconds))
        for span in spans
    ]  # fmt: skip
    columns = ("up to step", "steps", "mean loss", "lowest", "highest", f"a step, {unit}", "time so far, s")
    return table(columns, rows, "spans of steps (MEASURED)")
