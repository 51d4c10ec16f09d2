"""A training for people and for programs: the block of a terminal, and the document that run.json holds."""

from __future__ import annotations

import math
from typing import Any

from pydantic import Field
from rich.console import Group, RenderableType
from rich.text import Text

from vivace.core.measurement import Comparison, Interval, Outcome, SpeedVerdict
from vivace.core.quality import QualityVerdict
from vivace.core.training.course import Course
from vivace.core.training.parity import Agreement, Curve, Parity
from vivace.core.training.proofs import LaterProof
from vivace.core.training.run import Advice, Basis, Diagnosis, Rank, Scaling, StepTrial, TrainingRun
from vivace.report.document import JsonDocument
from vivace.report.duration import show_duration
from vivace.report.layout import line, plain_table, short
from vivace.report.results import PAGE, TechniqueDocument, technique_documents
from vivace.report.training_page.later import later_words
from vivace.report.training_page.laws import scaling_words
from vivace.report.training_page.operators import roofline_table
from vivace.report.wording import show_bytes, show_speedup

SCHEMA_VERSION = 1
RUN = "run.json"
"""The file of a training's folder that holds its document."""
TOLD = 300
"""Tensors of a proof that the document names, the worst first."""
MOST_TRIED, MOST_NOTES = 8, 2
"""Trials and notes that the terminal's block has room for; the document holds all."""

PHASES = {
    "input": "waiting for input", "forward": "forward and loss", "backward": "backward", "update": "optimizer",
    "whole": "forward and backward, as one",
}  # fmt: skip
"""The phases of a step in their order: what `Diagnosis` calls their seconds, and what people call them."""
MEMORY = {
    "parameter": "parameters", "gradient": "gradients", "optimizer": "optimizer", "activation": "activations",
}  # fmt: skip
"""The same of the kinds of memory."""


class StepTrialDocument(JsonDocument):
    """One plan whose steps were tried; its speed-up is over the best plan before it."""

    plan: list[TechniqueDocument]
    plan_name: str
    outcome: Outcome
    speedup: Interval | None
    prepare_seconds: float
    accepted: bool
    reason: str
    notes: list[str] = Field(default_factory=list)
    over_name: str = ""
    pays_after: int | None = None
    seconds: float | None = None
    over_seconds: float | None = None


class LedgerEntryDocument(JsonDocument):
    """What one technique of the plan brought when it was added: a step's speed-up over the plan before it."""

    brought: str
    over_name: str
    speedup: Interval | None
    pays_after: int | None


class ParityDocument(JsonDocument):
    """The proof that a plan trains as the original does. `tensors` counts all comparisons, of which `agreements` holds
    the worst; `curve` and `scores` compare losses and scores over seeds, None where none were run."""

    verdict: QualityVerdict
    reason: str
    reference: str
    tensors: int
    agreements: list[Agreement]
    notes: list[str]
    curve: Curve | None = None
    scores: Curve | None = None


class TrainingDocument(JsonDocument):
    """A training run. `comparison` and `speedup` are of steps, MEASURED; losses and scores one an epoch; `course` holds
    the steps. Keys that came later have defaults, so that a file which lacks them reads back."""

    schema_version: int
    name: str
    plan: list[TechniqueDocument]
    plan_name: str
    speedup: Interval | None
    comparison: Comparison | None
    parity: ParityDocument | None
    diagnosis: Diagnosis
    trials: list[StepTrialDocument]
    ledger: list[LedgerEntryDocument] = Field(default_factory=list)
    losses: list[float]
    scores: list[float | None]
    steps: int
    seconds: float
    search_seconds: float
    resumed_steps: int
    skipped_steps: int = 0
    reached: bool | None
    conditions: dict[str, Any]
    out: str | None = None
    diagnosis_after: Diagnosis | None = None
    noise_ratios: list[float] = Field(default_factory=list)
    break_even_steps: int | None = None
    course: Course = Course()
    prepare_seconds: float = 0.0
    epoch_seconds: list[float] = Field(default_factory=list)
    peak_bytes: int = 0
    restarts: list[str] = Field(default_factory=list)
    dropped: list[str] = Field(default_factory=list)
    proofs: list[LaterProof] = Field(default_factory=list)
    unproved: str = ""
    earlier: str = ""
    scaling: Scaling | None = None
    ranks: list[Rank] = Field(default_factory=list)


class DiagnosisDocument(JsonDocument):
    """Where the original's step goes."""

    schema_version: int
    diagnosis: Diagnosis
    share_of_ceiling: float | None


def diagnosis_document(found: Diagnosis) -> DiagnosisDocument:
    """The document of a diagnosis."""
    return DiagnosisDocument(schema_version=SCHEMA_VERSION, diagnosis=found, share_of_ceiling=found.share_of_ceiling)


def training_document(run: TrainingRun) -> TrainingDocument:
    """The document of a run."""
    return TrainingDocument(
        schema_version=SCHEMA_VERSION, name=run.name, plan=technique_documents(run.plan), plan_name=str(run.plan),
        speedup=run.speedup, comparison=run.comparison,
        parity=None if run.parity is None else parity_document(run.parity),
        diagnosis=run.diagnosis, trials=[_trial(trial) for trial in run.trials],
        ledger=[_entry(trial) for trial in run.ledger], losses=list(run.losses),
        scores=list(run.scores), steps=run.steps, seconds=run.seconds, search_seconds=run.search_seconds,
        prepare_seconds=run.prepare_seconds, epoch_seconds=list(run.epoch_seconds), peak_bytes=run.peak_bytes,
        resumed_steps=run.resumed_steps, skipped_steps=run.skipped_steps, restarts=list(run.restarts),
        dropped=list(run.dropped), proofs=list(run.proofs), unproved=run.unproved,
        earlier=run.earlier,
        scaling=run.scaling, ranks=list(run.ranks), reached=run.reached,
        conditions=run.conditions,
        out=None if run.out is None else str(run.out), diagnosis_after=run.diagnosis_after,
        noise_ratios=list(run.noise_ratios), break_even_steps=run.break_even_steps, course=run.course,
    )  # fmt: skip


def parity_document(proof: Parity) -> ParityDocument:
    """The document of a proof."""
    return ParityDocument(
        verdict=proof.verdict, reason=proof.reason, reference=proof.reference,
        tensors=len(proof.agreements) + proof.untold,
        agreements=list(proof.agreements[:TOLD]), notes=list(proof.notes), curve=proof.curve, scores=proof.scores,
    )  # fmt: skip


def _trial(trial: StepTrial) -> StepTrialDocument:
    return StepTrialDocument(
        plan=technique_documents(trial.plan), plan_name=str(trial.plan), outcome=trial.outcome, speedup=trial.speedup,
        prepare_seconds=trial.prepare_seconds, accepted=trial.accepted, reason=trial.reason,
        notes=list(trial.notes),
        over_name=str(trial.over), pays_after=trial.pays_after, seconds=trial.seconds, over_seconds=trial.over_seconds,
    )  # fmt: skip


def _entry(trial: StepTrial) -> LedgerEntryDocument:
    return LedgerEntryDocument(
        brought=trial.brought, over_name=str(trial.over), speedup=trial.speedup, pays_after=trial.pays_after
    )


def training_block(run: TrainingRun) -> RenderableType:
    """What was won, the proof, where the step's time went, what was tried, how the training went: under 40 lines."""
    table = plain_table("tried", "speed-up", "", "plan", giving="plan")
    shown = sorted(enumerate(run.trials, 1), key=lambda entry: not entry[1].accepted)[:MOST_TRIED]
    for number, trial in sorted(shown, key=lambda entry: entry[0]):
        kept = "kept" if trial.accepted else trial.outcome.value.replace("_", " ")
        told = show_speedup(trial.speedup) if trial.speedup else "-"
        table.add_row(str(number), told, kept, short(str(trial.plan)))
    return Group(
        Text(headline(training_document(run)), "bold"),
        *([line(run.earlier)] if run.earlier else []),
        *([line(f"parity {run.parity.verdict.value}: {run.parity.reason}")] if run.parity else []),
        diagnosis_block(run.diagnosis),
        *([line(_after(run.diagnosis_after))] if run.diagnosis_after else []),
        *([table] if run.trials else []),
        *([line(f"and {len(run.trials) - len(shown)} more, in {RUN}")] if len(run.trials) > len(shown) else []),
        line(_course(run)),
        *map(line, later_words(run.proofs, run.unproved)),
        *([line(scaling_words(run.scaling))] if run.scaling else []),
        *([line(f"kept in {run.out}: model.safetensors, run.json, {PAGE}")] if run.out else []),
    )


def headline(document: TrainingDocument) -> str:
    """One sentence: the speed-up of a step and how sure that is, with the verdict on parity; or that nothing won."""
    name, found, proof = document.name, document.comparison, document.parity
    earlier = ", in the session before it was resumed" if document.earlier else ""
    if document.dropped:
        return f"{name}: {document.dropped[-1]}"
    if not document.plan:
        slow = "" if document.scaling is None else f"; {document.scaling.processes} processes were slower than one"
        return f"{name}: no plan was faster and the same, so it was trained as given{slow}"
    proved = f"; parity {proof.verdict.value}{earlier if found is None else ''}" if proof is not None else ""
    if found is None:
        return f"{name}: trained with {document.plan_name}, which was not timed{proved}"
    sure = f"(95% interval, {found.restarts} pairs of processes, MEASURED{earlier}: {found.verdict.value}{proved})"
    if found.verdict is SpeedVerdict.SLOWER:
        slow = f"{name}: trained with {document.plan_name}, as was asked for: its step is SLOWER than in one process"
        return f"{slow}, {show_speedup(found.speedup)} as fast {sure}"
    if found.verdict is not SpeedVerdict.FASTER:
        speed = show_speedup(found.speedup)
        return f"{name}: trained with {document.plan_name}, whose step was not shown to be faster: {speed} {sure}"
    return f"{name}: a step is {show_speedup(found.speedup)} as fast with {document.plan_name} {sure}"


def diagnosis_block(found: Diagnosis) -> RenderableType:
    """Where a step's time and memory go."""
    table = plain_table("of a step", "ms", "share")
    for key, name in PHASES.items():
        seconds = getattr(found, f"{key}_seconds")
        if seconds or key != "whole":
            table.add_row(name, f"{seconds * 1e3:.3g}", f"{seconds / found.step_seconds:.0%}")
    exchanged = found.communication_seconds
    told = "(of which processes exchange)" if exchanged else "communication (one process)"
    table.add_row(told, f"{exchanged * 1e3:.3g}", f"{exchanged / found.step_seconds:.0%}")
    table.add_row("(of which no operator ran)", f"{found.overhead_seconds * 1e3:.3g}",
                  f"{found.overhead_seconds / found.step_seconds:.0%}")  # fmt: skip
    share = found.share_of_ceiling
    ceiling = f"{share:.1%} of the measured ceiling" if share is not None else "ceiling not measured"
    evaluated = f"; one evaluation {found.evaluate_seconds * 1e3:.3g} ms" if found.evaluate_seconds is not None else ""
    memory = ", ".join(f"{name} {show_bytes(getattr(found, f'{key}_bytes'))}" for key, name in MEMORY.items())
    return Group(
        line(
            f"a step of the original: {found.step_seconds * 1e3:.3g} ms, bound by {found.bound_words}: {found.evidence}"
        ),
        table,
        *([] if found.roofline is None else [roofline_table(found.roofline)]),
        line(f"{found.flops / 1e6:.3g} MFLOP a step, {ceiling}{evaluated}"),
        line(f"memory: {memory}"),
        *(
            [line("advice, each change alone; measured ones by the low end, then bounds by size:")]
            if found.advice
            else []
        ),
        *(line(f"advice: {advice_words(one)}") for one in found.advice),
        *(line(f"note: {note}") for note in found.notes[:MOST_NOTES]),
    )


def advice_words(one: Advice) -> str:
    """One line of advice, with its label, and its interval where it was measured.

    >>> advice_words(Advice("the batch is in memory already", "sample-cache", 1.2, Basis.PREDICTED))
    'the batch is in memory already: at most 1.2 times as fast, PREDICTED (a bound)'
    """
    if one.basis is Basis.PREDICTED:
        return f"{one.change}: at most {one.gain:.3g} times as fast, PREDICTED (a bound)"
    sure = (
        "" if one.interval is None else f" (95% interval {one.interval.low:.3g} to {one.interval.high:.3g}, in turns)"
    )
    return f"{one.change}: {one.gain:.3g} times as fast, MEASURED{sure}"


def _after(found: Diagnosis) -> str:
    told = f"{found.step_seconds * 1e3:.3g} ms, bound by {found.bound_words}: {found.evidence}"
    return f"a step of the plan: {told}"


def _course(run: TrainingRun) -> str:
    loss = f"loss {run.losses[0]:.4g} to {run.losses[-1]:.4g}" if run.losses else "no whole epoch"
    scores = [score for score in run.scores if score is not None and math.isfinite(score)]
    score = f", score {scores[-1]:.4g}" if scores else ""
    reached = {None: "", True: " (reached what was asked for)", False: " (did not reach what was asked for)"}[
        run.reached
    ]
    resumed = f", of which {run.resumed_steps} before it was resumed" if run.resumed_steps else ""
    left_out = f", {run.skipped_steps} left out (gradients were not finite)" if run.skipped_steps else ""
    times = "once" if len(run.restarts) == 1 else f"{len(run.restarts)} times"
    again = f", restarted {times} ({'; '.join(run.restarts)})" if run.restarts else ""
    took = f"{show_duration(run.seconds)} of training after {show_duration(run.search_seconds)} of choosing"
    return f"{run.steps} steps{resumed}{left_out}{again}, {len(run.losses)} epochs: {loss}{score}{reached}; {took}"
