"""What stands around the figures: key numbers above, and below how to do it again and what the result does not say."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vivace.core.layer import StoredWeights
from vivace.core.measurement import SpeedVerdict
from vivace.core.quality import QualityVerdict
from vivace.core.result import Status
from vivace.report.candidates import winner_of
from vivace.report.duration import show_duration
from vivace.report.html.figure import Cell, Table, table
from vivace.report.html.skeleton import Tile
from vivace.report.html.words import LONG, cut, number, plural
from vivace.report.machinery import cores_words
from vivace.report.results import ResultDocument
from vivace.report.wording import P99_CALLS, quality_sentence, show_bytes, show_milliseconds, show_speedup


def key_numbers(document: ResultDocument) -> Iterator[Tile]:
    """The row of numbers below the first line."""
    measured = document.comparison
    before, after = measured.baseline, measured.candidate
    name = "speed-up" if document.plan else "the original's artifact over the original"
    evidence = f"{plural(measured.blocks, 'paired block')} in {plural(measured.restarts, 'pair')} of fresh processes"
    yield f"{name}, MEASURED", show_speedup(measured.speedup), f"{measured.verdict.value}; 95% interval; {evidence}"
    if document.best_rung is not None:
        rung = document.best_rung
        yield (
            "plain PyTorch, MEASURED",
            show_speedup(rung.comparison.speedup),
            f"the best plain rung: {cut(rung.plan_name, 80)}",
        )
    calls = f"{before.calls:,} and {after.calls:,} calls"
    times = f"{show_milliseconds(before.median_seconds)} → {show_milliseconds(after.median_seconds)} ms"
    yield "median call, MEASURED", times, calls
    yield "quality", document.quality.verdict.value, quality_sentence(document.quality)
    memory = f"{show_bytes(before.peak_memory_bytes)} → {show_bytes(after.peak_memory_bytes)}"
    yield "peak memory, MEASURED", memory, "of the whole process"
    yield "noise floor, MEASURED", f"{document.noise_floor:.1%}", "the original against itself (A/A)"
    if document.status is Status.FASTER:
        calls = "never" if document.break_even_calls is None else plural(document.break_even_calls, "call")
        yield "break-even", calls, "building, loading and the first call against the time saved"
    tried = plural(len(document.candidates), "candidate")
    yield "search", tried, f"in {show_duration(document.wall_seconds)}"


def machine(document: ResultDocument) -> Table:
    """The conditions of every number on the page."""
    here = document.machine
    rows = [("processor", f"{here.get('processor', 'not recorded')}, {here.get('cores_allowed', '?')} cores allowed")]
    rows += [("instructions", " ".join(map(str, here["instructions"])))] if here.get("instructions") else []
    rows += [("versions", listed(document.versions))]
    return conditions(rows, document.conditions)


def conditions(rows: Sequence[tuple[str, str]], rest: Mapping[str, Any]) -> Table:
    """A table of conditions: first these rows, then the rest of what a document holds of them."""
    others = (
        (key.replace("_", " "), value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        for key, value in rest.items()
        if value not in ("", None, [], {})
    )
    return table(("condition", "value"), [(name, cut(value, LONG)) for name, value in (*rows, *others)])


def listed(versions: Mapping[str, Any]) -> str:
    """Packages with their versions, as one text."""
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def details(document: ResultDocument) -> Iterator[tuple[str, Table]]:
    """What one operator of the delivered program does for several layers; weights that it stores in another form;
    what more cores gave; techniques that were not tried, and why."""
    if document.fused:
        rows = [(group.operator, cut(" + ".join(group.layers), LONG)) for group in document.fused]
        yield (
            f"{plural(len(rows), 'group')} of layers run as one operator",
            table(("operator", "layers that run as one"), rows),
        )
    if document.stored_weights is not None:
        yield f"weights stored otherwise: {cut(str(document.stored_weights), LONG)}", _stored(document.stored_weights)
    if document.cores:
        rows = [(cut(one.plan_name, LONG), cut(cores_words(one), 2 * LONG)) for one in document.cores]
        yield (
            f"what more cores gave {plural(len(rows), 'plan')}, by Amdahl and by Gustafson",
            table(("plan, beside threads and copies", "what was seen, and the laws"), rows),
        )
    if document.left_out:
        rows = [(name, cut(why, LONG)) for name, why in document.left_out.items()]
        yield (
            f"{plural(len(rows), 'technique')} left out, each with its reason",
            table(("technique", "why it was left out"), rows),
        )


def _stored(found: StoredWeights) -> Table:
    """What the weight of each layer took as it came, and what is stored for it."""
    rows: list[tuple[str | Cell, ...]] = [
        (
            cut(one.layer, 160),
            cut(one.form, 80),
            Cell(f"{one.dense_bytes:,}", one.dense_bytes),
            Cell(f"{one.stored_bytes:,}", one.stored_bytes),
        )
        for one in found.each
    ]
    return table(("layer", "stored as", "dense, bytes", "stored, bytes"), rows)


def commands(document: ResultDocument) -> Iterator[tuple[str, str]]:
    """How to do it again: what each command does, and the command. TARGET is what was optimized."""
    won = winner_of(document)
    if won is not None and won.reproduce:
        yield "the delivered plan alone", won.reproduce
    yield "the whole search, with the time that it took", f"vivace optimize TARGET --time {_seconds(document)}"
    if document.artifact is not None:
        artifact = shlex.quote(document.artifact)
        yield "the comparison", f"vivace measure TARGET {artifact}"
        yield "this page", f"vivace report {artifact}"


def limits(document: ResultDocument) -> Iterator[str]:
    """What the numbers do not say."""
    yield "Every speed was measured on the machine named here, with the shapes given; elsewhere, measure again."
    if document.comparison.verdict is SpeedVerdict.UNDECIDED:
        yield "The comparison of what was delivered with the original is UNDECIDED: more time narrows the interval."
    yield _quality(document)
    for name, times in (("original", document.comparison.baseline), ("delivered", document.comparison.candidate)):
        if times.p99_seconds is None:
            yield f"The p99 of the {name} program is not estimable (n = {times.calls}); it needs {P99_CALLS} calls."
    if document.noise_floor >= 0.1:
        yield f"The machine was disturbed: the original differs from itself by up to {document.noise_floor:.0%}."
    yield "Speeds of the race and predictions choose what is confirmed; they are no results."
    if document.fused_note:
        yield f"Fusions: {document.fused_note}."
    yield from (f"Note: {note}." for note in document.notes)


def _quality(document: ResultDocument) -> str:
    quality = document.quality
    if quality.fidelity is not None and quality.drop is None:
        return "There were no labels: agreement with the original can refuse a plan and cannot certify its quality."
    if quality.verdict is QualityVerdict.CANNOT_TELL:
        needed = f" about {quality.samples_needed} samples like these would decide" if quality.samples_needed else ""
        return f"The quality is undecided:{needed or ' nothing says how many samples would decide'}."
    return f"Quality was judged on {plural(quality.samples, 'sample')} given, and says nothing of other data."


def _seconds(document: ResultDocument) -> str:
    return f"{max(10, round(document.wall_seconds))}s" if document.wall_seconds < 1e7 else number(document.wall_seconds)
