"""Figure 3: how long calls take, all of them; and the ratio of each block in time order, with the A/A strip beneath."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from vivace.core.measurement import ArmTimes, Quantile
from vivace.report.html import blocks, chart, svg
from vivace.report.html.chart import Panel
from vivace.report.html.figure import Cell, Figure, Table, absent, table
from vivace.report.html.scale import Scale, fitting
from vivace.report.html.words import number, plural, show_seconds, time_unit
from vivace.report.results import ResultDocument

NUMBER, KEY, TITLE = 3, "latency", "How long calls take, and how steadily"
NEAR = 1.3
Arms = Sequence[tuple[str, str, str, ArmTimes]]
"""Name, class, marker, times."""


def figure(document: ResultDocument) -> Figure:
    """Distributions of call times and ratios by block, of what is there."""
    arms = _arms(document)
    spread = [] if not any(times.spread_seconds for *_, times in arms) else [_distributions(arms)]
    timed = [ratio for restart in document.comparison.ratios for ratio in restart]
    ratios = [_ratios(document)] if timed or document.noise_ratios else []
    if not spread and not ratios:
        return absent(NUMBER, KEY, TITLE, "There are no distributions: this result holds no call times and no blocks.")
    return Figure(
        NUMBER,
        KEY,
        TITLE,
        _said(document, bool(spread)),
        (*spread, *ratios),
        f"{_calls(arms)}; {plural(len(timed), 'block')} in {plural(document.comparison.restarts, 'pair')} of fresh "
        f"processes; {plural(len(document.noise_ratios), 'block')} of the original against itself",
        "every timed call of the confirmation, shown at evenly spaced shares; p50, p90 and p99 with two-sided 95% "
        "intervals by order statistics, an open end where there are too few calls. A block is ABBA: its ratio is the "
        "original's median over the other's; the band is the 95% interval of the speed-up, and in the strip the noise "
        "floor",
        f"MEASURED; time of one call, {time_unit(_all_seconds(arms))[1]}; ratio, times",
        (_table(arms), *_shapes(document, arms)),
        is_wide=True,
    )


def _arms(document: ResultDocument) -> Arms:
    other = document.plan_name if document.plan else "the original's artifact"
    return (
        ("original", "original", "diamond", document.comparison.baseline),
        (other, "winner", "square", document.comparison.candidate),
    )


def _said(document: ResultDocument, has_spread: bool) -> str:
    arms = (("the original", document.comparison.baseline), ("the delivered program", document.comparison.candidate))
    unsteady = [name for name, times in arms if not times.steady]
    told = [f"UNSTEADY: {' and '.join(unsteady)} never settled while warming up."] if unsteady else []
    told += [] if has_spread else ["This result holds no distribution of call times."]
    told += [] if document.noise_ratios else ["This result holds no blocks of the original against itself."]
    return " ".join([*told, f"The smallest effect that this session may claim is {document.noise_floor:.1%}."])


def _calls(arms: Arms) -> str:
    (*_, before), (*_, after) = arms
    return f"{plural(before.calls, 'call')} of the original, {plural(after.calls, 'call')} of the delivered program"


def _all_seconds(arms: Arms) -> list[float]:
    return [times.median_seconds for *_, times in arms]


def _distributions(arms: Arms) -> Markup:
    factor, unit = time_unit(_all_seconds(arms))
    seconds = [value * factor for *_, times in arms for value in times.spread_seconds]
    key, top = chart.legend([(shape, class_, _short(name)) for name, class_, shape, _ in arms])
    panel = Panel(fitting(seconds, 52, 470), Scale(0, 1, 236, top + 18))
    told = "; ".join(f"{_short(name)} p50 {show_seconds(times.median_seconds)}" for name, *_, times in arms)
    return svg.drawing(
        "spread",
        "Distribution of call times",
        f"Share of calls that take at most so long. {told}.",
        chart.WIDTH,
        272,
        key,
        panel.axes(f"time of one call, {unit} (MEASURED)", "share of calls that take at most this", y_text=_percent),
        *(_arm(panel, class_, shape, times, factor, unit, name) for name, class_, shape, times in arms),
    )


def _arm(panel: Panel, class_: str, shape: str, times: ArmTimes, factor: float, unit: str, name: str) -> Markup:
    last = len(times.spread_seconds) - 1
    points = [
        (panel.x.at(value * factor), panel.y.at(place / max(last, 1)))
        for place, value in enumerate(times.spread_seconds)
    ]
    marks = [_quantile(panel, class_, shape, one, factor, unit, name) for one in times.quantiles]
    return svg.join(svg.path(points, f"{class_} curve"), *marks)


def _quantile(panel: Panel, class_: str, shape: str, one: Quantile, factor: float, unit: str, name: str) -> Markup:
    low = panel.x.low if one.low_seconds is None else one.low_seconds * factor
    high = panel.x.high * 2 if one.high_seconds is None else one.high_seconds * factor
    x, y = panel.x.at(one.seconds * factor), panel.y.at(one.share)
    tip = f"{name}, p{one.share * 100:g}: {_bounds(one, factor)} {unit}"
    label = svg.text(x + 6, y + 12, f"p{one.share * 100:g}", "name") if class_ == "original" else Markup()
    return svg.hover(tip, panel.across(low, high, one.share, "arm"), svg.marker(shape, x, y, class_), label)


def _bounds(one: Quantile, factor: float) -> str:
    ends = ("-" if end is None else number(end * factor) for end in (one.low_seconds, one.high_seconds))
    return f"{number(one.seconds * factor)} [{', '.join(ends)}]"


def _ratios(document: ResultDocument) -> Markup:
    same = document.noise_ratios
    return blocks.drawn("the delivered", document.comparison, same, document.noise_floor)


def _table(arms: Arms) -> Table:
    factor, unit = time_unit(_all_seconds(arms))
    rows: list[tuple[str | Cell, ...]] = []
    for name, _, _, times in arms:
        found = {one.share: one for one in times.quantiles}
        rows.append((name, Cell(number(times.median_seconds * factor), times.median_seconds),
                     *(_bounds(found[share], factor) if share in found else "-" for share in (0.5, 0.9, 0.99)),
                     Cell(f"{times.calls:,}", times.calls)))  # fmt: skip
    return table(("program", f"median, {unit}", *(f"{p}, {unit} [95%]" for p in ("p50", "p90", "p99")), "calls"), rows)


def _shapes(document: ResultDocument, arms: Arms) -> list[Table]:
    """The median of each shape, where calls come in several."""
    mix = document.conditions.get("mix")
    if not isinstance(mix, list):
        return []
    factor, unit = time_unit(_all_seconds(arms))
    medians = zip(mix, *(times.shape_seconds for *_, times in arms), strict=False)
    rows: list[tuple[str | Cell, ...]] = [
        (str(one["shape"]), f"{one['weight']:.0%}", *(Cell(number(v * factor), v) for v in (before, after)))
        for one, before, after in medians
    ]
    return [table(("shape", "of all calls", f"original, {unit}", f"delivered, {unit}"), rows, "medians by shape")]


def _short(name: str) -> str:
    return name if len(name) <= 52 else f"{name[:51]}…"


def _percent(value: float) -> str:
    return f"{value:.0%}"
