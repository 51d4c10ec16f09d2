"""Figure 7: on which samples the delivered program decides otherwise than the original, class by class."""

from __future__ import annotations

from markupsafe import Markup

from vivace.core.quality import Decisions, Flip
from vivace.report.html import chart, svg
from vivace.report.html.figure import Cell, Figure, Table, absent, table
from vivace.report.html.scale import Scale, linear
from vivace.report.html.words import number, plural
from vivace.report.results import ResultDocument

NUMBER, KEY, TITLE = 7, "decisions", "Changed decisions"
MOST_BARS = 14
LABELS = 110.0
KINDS = (("better", "gain", "+"), ("worse", "loss", "-"), ("neither", "overhead", "="))


def figure(document: ResultDocument) -> Figure:
    """Bars of the changes from class to class, or why there are none."""
    if not document.plan:
        return absent(NUMBER, KEY, TITLE, "No decision can have changed: the original was kept.")
    quality, found = document.quality, document.quality.decisions
    if found is None:
        return absent(
            NUMBER, KEY, TITLE,
            "There are no decisions to compare: the outputs are no scores of classes, or this result holds none.",
        )  # fmt: skip
    changed, samples = sum(flip.samples for flip in found.flips), sum(count for _, count in found.samples_by_class)
    return Figure(
        NUMBER,
        KEY,
        TITLE,
        _said(found, changed, samples),
        (_drawing(found.flips),) if found.flips else (),
        plural(samples, "sample"),
        f"the confirm part of the data, used once ({quality.basis}); ties of the original's are not counted as "
        "changed. Better, worse: the sample's score by the metric rose or fell",
        "MEASURED; samples",
        (_table(found.flips), _classes(found)) if found.flips else (_classes(found),),
    )


def _said(found: Decisions, changed: int, samples: int) -> str:
    if not changed:
        return f"No decision changed on {plural(samples, 'sample')}."
    flips = found.flips
    known = [flip for flip in flips if flip.better is not None and flip.worse is not None]
    share = f" ({changed / samples:.2%})" if samples else ""
    if not known:
        return f"{changed:,} of {plural(samples, 'decision')} changed{share}; without a metric none is better or worse."
    better, worse = sum(flip.better or 0 for flip in known), sum(flip.worse or 0 for flip in known)
    told = f"{better:,} for the better, {worse:,} for the worse"
    return f"{changed:,} of {plural(samples, 'decision')} changed{share}: {told}."


def _parts(flip: Flip) -> tuple[int, int, int]:
    better, worse = flip.better or 0, flip.worse or 0
    return better, worse, max(0, flip.samples - better - worse)


def _drawing(flips: tuple[Flip, ...]) -> Markup:
    key, top = chart.legend([("square", class_, f"{sign} {word}") for word, class_, sign in KINDS])
    shown = flips[:MOST_BARS]
    scale = linear([float(flip.samples) for flip in shown], LABELS + 6, 420, include=(0,))
    bottom = top + 4 + 16 * len(shown)
    more = f" (the {MOST_BARS} most frequent of {len(flips)})" if len(flips) > MOST_BARS else ""
    whole = [v for v in scale.ticks(6) if v == int(v)]
    return svg.drawing(
        KEY,
        TITLE,
        "From class to class: " + ", ".join(f"{_name(flip)} {plural(flip.samples, 'sample')}" for flip in shown[:5]),
        chart.WIDTH,
        bottom + 32,
        key,
        *(_bar(flip, scale, top + 16 * place) for place, flip in enumerate(shown)),
        svg.line(scale.start, top - 2, scale.start, bottom, "axis"),
        *(svg.text(scale.at(v), bottom + 12, number(v), "tick", "middle") for v in whole),
        svg.text((LABELS + 426) / 2, bottom + 27, f"samples, original's class → delivered's{more}", "title", "middle"),
    )


def _bar(flip: Flip, scale: Scale, top: float) -> Markup:
    begun, drawn, told = 0, [], []
    for count, (word, class_, sign) in zip(_parts(flip), KINDS, strict=True):
        if not count:
            continue
        start, end = scale.at(begun), scale.at(begun + count)
        drawn.append(svg.rectangle(start, top + 1, end - start - 0.8, 11, class_))
        if end - start > 18:
            drawn.append(svg.text((start + end) / 2, top + 10, f"{sign}{count}", "inside", "middle"))
        told.append(f"{count} {word}")
        begun += count
    return svg.hover(
        f"{_name(flip)}: {plural(flip.samples, 'sample')}, {', '.join(told)}",
        svg.text(LABELS, top + 10, _name(flip), "label", "end"),
        *drawn,
        svg.text(scale.at(begun) + 5, top + 10, f"{flip.samples:,}", "value"),
    )


def _name(flip: Flip) -> str:
    return f"{flip.original} → {flip.candidate}"


def _table(flips: tuple[Flip, ...]) -> Table:
    rows: list[tuple[str | Cell, ...]] = [
        (
            Cell(str(flip.original), flip.original),
            Cell(str(flip.candidate), flip.candidate),
            Cell(f"{flip.samples:,}", flip.samples),
            Cell("-" if flip.better is None else f"{flip.better:,}", flip.better),
            Cell("-" if flip.worse is None else f"{flip.worse:,}", flip.worse),
        )
        for flip in flips
    ]
    return table(("original's class", "delivered's class", "samples", "better", "worse"), rows)


def _classes(found: Decisions) -> Table:
    changed: dict[int, int] = {}
    for flip in found.flips:
        changed[flip.original] = changed.get(flip.original, 0) + flip.samples
    rows: list[tuple[str | Cell, ...]] = [
        (Cell(str(name), name), Cell(f"{count:,}", count), Cell(f"{changed.get(name, 0):,}", changed.get(name, 0)))
        for name, count in found.samples_by_class
    ]
    return table(("original's class", "samples", "changed"), rows, "by class")
