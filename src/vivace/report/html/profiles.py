"""Figure 4: where the time goes before and after, by operator and by layer, with the framework's overhead."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from markupsafe import Markup

from vivace.core.compute import Profile, TimeShare, seconds_by_layer, seconds_by_operator
from vivace.report.html import chart, svg
from vivace.report.html.chart import Bar
from vivace.report.html.figure import Cell, Figure, Table, absent, table
from vivace.report.html.scale import linear
from vivace.report.html.words import cut, number, plural, show_seconds, time_unit
from vivace.report.results import ResultDocument

NUMBER, KEY, TITLE = 4, "profiles", "Where the time of a call goes"
MOST_BARS = 10
LABELS = 168.0
UNNAMED = "no layer named by the engine"
OVERHEAD = "framework overhead"
Named = Sequence[tuple[str, str, Profile]]
"""Words, class, profile."""
Split = Callable[[Profile], tuple[TimeShare, ...]]


def figure(document: ResultDocument) -> Figure:
    """Bars of the longest operators and layers, before and after, or why nothing was profiled."""
    found = document.profiles
    if found is None or (found.original is None and found.winner is None):
        why = found.note if found is not None and found.note else "neither program was profiled"
        return absent(NUMBER, KEY, TITLE, f"There is no profile: {why}.")
    programs = _programs(document)
    factor, unit = time_unit(profile.call_seconds for *_, profile in programs)
    return Figure(
        NUMBER,
        KEY,
        TITLE,
        " ".join([*(_told(words, profile) for words, _, profile in programs), _notes(document)]).strip(),
        (
            _drawing(programs, "operator", seconds_by_operator, factor, unit),
            _drawing(programs, "layer", seconds_by_layer, factor, unit),
        ),
        ", ".join(f"{words}: {plural(len(profile.operators), 'operator')}" for words, _, profile in programs),
        "one profiled call of each program, whose own cost is in it; framework overhead is what of a call no operator "
        "takes: dispatch, allocation, threads that wait. Layers that run as one operator are one entry, joined by +",
        f"MEASURED; time in one call, {unit}",
        (
            _table(programs, "operator", seconds_by_operator, factor, unit),
            _table(programs, "layer", seconds_by_layer, factor, unit),
        ),
        is_wide=True,
    )


def _programs(document: ResultDocument) -> Named:
    assert document.profiles is not None
    both = (("before", "original", document.profiles.original), ("after", "winner", document.profiles.winner))
    return [(f"{words} ({profile.form})", class_, profile) for words, class_, profile in both if profile is not None]


def _told(words: str, profile: Profile) -> str:
    longest = seconds_by_operator(profile)[:1]
    most = f", most of it in {longest[0].name} ({show_seconds(longest[0].seconds)})" if longest else ""
    return (
        f"{words.capitalize()}: {show_seconds(profile.call_seconds)} a call{most}; framework overhead "
        f"{show_seconds(profile.overhead_seconds)}."
    )


def _notes(document: ResultDocument) -> str:
    assert document.profiles is not None
    found = document.profiles
    missing = [words for words, profile in (("original", found.original), ("winner", found.winner)) if profile is None]
    told = [f"the {words} was not profiled" for words in missing]
    told += [note for note in (found.note, *(p.note for p in (found.original, found.winner) if p)) if note]
    return "; ".join(told) + "." if told else ""


def _drawing(programs: Named, kind: str, split: Split, factor: float, unit: str) -> Markup:
    listed = [_bars(profile, split, class_, factor, unit) for _, class_, profile in programs]
    scale = linear([bar.value or 0.0 for rows in listed for bar in rows], LABELS + 6, 420, include=(0,))
    parts, top = [], 8.0
    for (words, _, profile), rows in zip(programs, listed, strict=True):
        head = f"{words}: {number(profile.call_seconds * factor)} {unit} a call"
        parts += [svg.text(4, top + 6, head, "title"), chart.bars(rows, scale, top + 12, LABELS)]
        top += 12 + 16 * len(rows) + 16
    told = "; ".join(f"{words}: " + ", ".join(f"{one.name or UNNAMED} {show_seconds(one.seconds)}"
                     for one in split(profile)[:3]) for words, _, profile in programs)  # fmt: skip
    return svg.drawing(
        f"{KEY}-{kind}",
        f"Time of a call by {kind}",
        f"Longest by {kind}. {told}.",
        chart.WIDTH,
        top + 20,
        *parts,
        svg.line(scale.start, 14, scale.start, top - 8, "axis"),
        *(svg.text(scale.at(v), top + 2, number(v), "tick", "middle") for v in scale.ticks(6)),
        svg.text((LABELS + 426) / 2, top + 16, f"by {kind}, {unit} in one call (MEASURED)", "title", "middle"),
    )


def _bars(profile: Profile, split: Split, class_: str, factor: float, unit: str) -> list[Bar]:
    shares = split(profile)
    shown = [
        _bar(share.name or UNNAMED, share.seconds, share.count, class_, factor, unit) for share in shares[:MOST_BARS]
    ]
    rest = shares[MOST_BARS:]
    if rest:
        together = sum(one.seconds for one in rest)
        shown.append(_bar(f"{len(rest)} others", together, 0, f"{class_} rest", factor, unit))
    return [*shown, _bar(OVERHEAD, profile.overhead_seconds, 0, "overhead", factor, unit)]


def _bar(name: str, seconds: float, count: int, class_: str, factor: float, unit: str) -> Bar:
    many = f" x{count}" if count > 1 else ""
    words = number(seconds * factor)
    tip = f"{name}: {words} {unit}" + (f" in {plural(count, 'operator')}" if count else "")
    return Bar(cut(name, 28 - len(many)) + many, seconds * factor, words, class_, tip)


def _table(programs: Named, kind: str, split: Split, factor: float, unit: str) -> Table:
    rows: list[tuple[str | Cell, ...]] = []
    for words, _, profile in programs:
        rows += [
            (words, cut(share.name or UNNAMED, 160), Cell(number(share.seconds * factor), share.seconds),
             Cell(f"{share.seconds / profile.call_seconds:.1%}" if profile.call_seconds else "-", share.seconds),
             Cell(str(share.count), share.count))
            for share in split(profile)
        ]  # fmt: skip
        rows.append((words, OVERHEAD, Cell(number(profile.overhead_seconds * factor), profile.overhead_seconds),
                     Cell("", None), Cell("", None)))  # fmt: skip
    return table(("program", kind, f"time, {unit}", "of the call", "operators"), rows, f"by {kind}")
