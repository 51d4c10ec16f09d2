"""What stands around the figures of a training: key numbers above; below, how to do it again, and its limits."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterator
from typing import Any

from vivace.core.measurement import Outcome, SpeedVerdict
from vivace.core.quality import QualityVerdict
from vivace.report.duration import show_duration
from vivace.report.html import around
from vivace.report.html.figure import Table
from vivace.report.html.skeleton import Tile
from vivace.report.html.words import cut, number, outcome_word, plural, show_seconds
from vivace.report.training import TrainingDocument
from vivace.report.training_page.later import later_words
from vivace.report.training_page.phases import bound_words, reached
from vivace.report.wording import show_speedup

UNSHOWN = ("machine", "versions", "processor_ticks", "throttled_periods", "options", "job")
"""Conditions that are told elsewhere, or mean something only beside those of another moment."""


def why_as_given(document: TrainingDocument) -> str:
    """Why the original was trained: how the trials ended. Empty where a plan was."""
    if document.plan:
        return ""
    if document.comparison is not None:
        found = document.comparison
        return f"the plan was confirmed as {show_speedup(found.speedup)}, {found.verdict.value}"
    if document.parity is not None:
        return f"the plan trains differently: {document.parity.reason}"
    if not document.trials:
        return "no technique was tried"
    counts = Counter(trial.outcome for trial in document.trials)
    ended = ", ".join(f"{counts[one]} {outcome_word(one)}" for one in Outcome if counts[one])
    return f"of {plural(len(document.trials), 'trial')}: {ended}; none was kept"


def key_numbers(document: TrainingDocument) -> Iterator[Tile]:
    """The row of numbers below the first line."""
    found, before, after = document.comparison, document.diagnosis, document.diagnosis_after
    if found is not None:
        pairs = f"{plural(found.blocks, 'paired block')} in {plural(found.restarts, 'pair')} of fresh processes"
        yield (
            "speed-up of a step, MEASURED",
            show_speedup(found.speedup),
            f"{found.verdict.value}; 95% interval; {pairs}{', before it was resumed' if document.earlier else ''}",
        )
        times = f"{show_seconds(found.baseline.median_seconds)} → {show_seconds(found.candidate.median_seconds)}"
        yield "median step, MEASURED", times, f"{found.baseline.calls:,} and {found.candidate.calls:,} steps"
    if document.parity is not None:
        tensors = f"{plural(document.parity.tensors, 'comparison')} of tensors with {document.parity.reference}"
        yield "parity", document.parity.verdict.value, tensors
    if document.proofs:
        held = sum(one.verdict is QualityVerdict.HELD for one in document.proofs)
        told = f"proofs of the run's own steps that held; the last after step {document.proofs[-1].step}"
        yield "proved again", f"{held} of {len(document.proofs)}", told
    bounds = bound_words(before) + ("" if after is None else f" → {bound_words(after)}")
    yield "what bounds a step", bounds, "the original" + ("" if after is None else " → the plan")
    yield (
        "counted, of the original's step",
        f"{number(before.flops / 1e6)} MFLOP",
        reached([before, *([after] if after else [])]),
    )
    yield from _processes(document)
    yield from _course(document)
    if found is not None and document.noise_ratios:
        yield "noise floor, MEASURED", f"{found.noise_floor:.1%}", "the original against itself (A/A)"
    yield from _search(document)


def _processes(document: TrainingDocument) -> Iterator[Tile]:
    found = document.scaling
    if found is not None:
        trained = f"{len(document.ranks)} processes" if document.ranks else "one process"
        told = f"{found.processes} processes over one"
        yield f"{told}, MEASURED", f"{number(found.speedup)}x", f"the original's step; {trained} trained"


def _course(document: TrainingDocument) -> Iterator[Tile]:
    scores = [score for score in document.scores if score is not None]
    if scores:
        reached = {None: "", True: "; what was asked for is reached", False: "; what was asked for is not reached"}
        yield (
            "last score, MEASURED",
            number(scores[-1]),
            f"after {plural(len(scores), 'epoch')}{reached[document.reached]}",
        )
    if document.losses:
        told = f"{number(document.losses[0])} → {number(document.losses[-1])}"
        yield "mean loss of an epoch, MEASURED", told, "the first → the last"
    yield "training", show_duration(document.seconds), f"{plural(document.steps, 'step')}, with scores and checkpoints"


def _search(document: TrainingDocument) -> Iterator[Tile]:
    paid = "" if document.break_even_steps is None else f"; paid back by {plural(document.break_even_steps, 'step')}"
    tried = f"{plural(len(document.trials), 'trial')}{paid}"
    yield "diagnosing and choosing", show_duration(document.search_seconds), tried


def machine(document: TrainingDocument) -> Table:
    """The conditions of every number on the page."""
    rest = document.conditions
    here, versions = _mapping(rest.get("machine")), _mapping(rest.get("versions"))
    rows = [("processor", f"{here.get('processor', 'not recorded')}, {here.get('cores_allowed', '?')} cores allowed")]
    rows += [("instructions", " ".join(map(str, here["instructions"])))] if here.get("instructions") else []
    rows += [("versions", around.listed(versions))] if versions else []
    rows += [(f"job: {key.replace('_', ' ')}", str(value)) for key, value in _mapping(rest.get("job")).items()]
    return around.conditions(rows, {key: value for key, value in rest.items() if key not in UNSHOWN})


def commands(document: TrainingDocument) -> Iterator[tuple[str, str]]:
    """How to do it again: what each command does, and the command."""
    out = shlex.quote(document.out or "run")
    yield "the whole run, in another folder", f"vivace train TARGET --out again{_options(document)}"
    if document.plan:
        plan = json.dumps([part.model_dump() for part in document.plan], ensure_ascii=False)
        plan = plan.replace("true", "True").replace("false", "False").replace("null", "None")
        yield "the proof alone, with losses over three seeds (Python)", f"vv.parity(job, {cut(plan, 1500)}, seeds=3)"
    yield "where the time of the original's step goes", "vivace train TARGET --diagnose-only"
    if document.out is not None:
        yield "this page", f"vivace report {out}"


def _options(document: TrainingDocument) -> str:
    """What was asked for, as the command takes it."""
    asked = _mapping(document.conditions.get("options"))
    team = _mapping(asked.get("team"))
    words = [f"--until {asked['until']}"] if asked.get("until") is not None else []
    words += [f"--processes {team['processes']}"] if team.get("processes") else []
    words += [f"--layout {shlex.quote(str(team['layout']))}"] if team.get("layout") else []
    words += [f"--time {shlex.quote(str(asked['time']))}"] if asked.get("time") else []
    words += [f"--{key} {shlex.quote(','.join(map(str, asked[key])))}" for key in ("only", "without") if asked.get(key)]
    return "".join(f" {word}" for word in [*words, *(["--changed"] if asked.get("changed") else [])])


def limits(document: TrainingDocument) -> Iterator[str]:
    """What the numbers do not say."""
    found, proof = document.comparison, document.parity
    yield "Every time was measured on the machine named here, with this job's batches; elsewhere, measure again."
    yield "The speed-up is that of a step with its batch. Scores and checkpoints take as long as before."
    if found is not None and found.verdict is SpeedVerdict.UNDECIDED:
        yield "The comparison with the original is UNDECIDED: more time, or a quieter machine, narrows the interval."
    if found is not None and found.noise_floor >= 0.1:
        yield f"The machine was disturbed: the original differs from itself by up to {found.noise_floor:.0%}."
    if document.plan and found is None:
        yield "The plan was not timed in this run, so how much faster it is, is not known from it."
    if proof is not None and proof.curve is None:
        yield "Parity compares single steps. Losses and scores over seeds were not compared (vv.parity with seeds=3)."
    if proof is not None and proof.tensors > len(proof.agreements):
        yield f"Of {proof.tensors} comparisons of tensors the {len(proof.agreements)} nearest to their limit are kept."
    yield from (f"{told[0].upper()}{told[1:]}." for told in later_words(document.proofs, document.unproved))
    yield "The losses and scores of this page are of one seed: another gives others."
    if document.earlier:
        yield f"It was resumed: {document.earlier}."
    elif document.resumed_steps:
        yield "It was resumed: choosing, proof and the steps before are in no file of this run."
    if document.diagnosis.share_of_ceiling is None:
        yield "The machine's ceiling was not measured, so no share of it is given: vivace doctor measures it once."
    yield "Speed-ups of single trials choose what is confirmed; they are no results."


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, dict) else {}
