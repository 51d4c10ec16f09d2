"""The document of a result: what results.json holds and `vivace optimize --json` prints, with a schema version.

Its keys are the field names of the Python objects (`core.result`, `core.measurement`, `core.quality`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from pydantic import Field

from vivace.core.attribution import Attribution, LeftOut, Step
from vivace.core.compute import Compute, Cores, Profiles
from vivace.core.forecast import Expected, Forecast
from vivace.core.layer import Fused, LayerSensitivity, StoredWeights
from vivace.core.measurement import Comparison, Interval, Outcome, SpeedVerdict
from vivace.core.plan import Plan
from vivace.core.quality import Quality
from vivace.core.result import Result, Status, Trial, TrialStage
from vivace.core.technique import Technique
from vivace.core.workload import Objective
from vivace.report.document import JsonDocument
from vivace.report.wording import why_not_chosen

SCHEMA_VERSION: Final = 1
RESULTS: Final = "results.json"
PAGE: Final = "report.html"
QUANTUM: Final = "quantum.json"
"""The file of a quantum run's folder that holds its document; here, so that other runs are read without numpy."""
"""The files of an artifact that hold the document and its page."""
_OWN_KEYS = ("machine", "environment", "versions")
"""What is taken out of `Result.conditions` and given a key of its own."""


class TechniqueDocument(JsonDocument):
    """One technique of a plan: its name and every setting."""

    technique: str
    settings: dict[str, Any]


class TrialDocument(JsonDocument):
    """One plan that was tried. `speedup` is from the race and `standing` from races with the fastest candidates: they
    only rank; `confirmed` is from fresh processes."""

    plan: list[TechniqueDocument]
    plan_name: str
    outcome: Outcome
    stage: TrialStage
    reason: str
    speedup: Interval | None
    standing: float | None
    predicted_speedup: float | None
    quality: Quality | None
    confirmed: Comparison | None
    size_bytes: int | None
    peak_memory_bytes: int | None
    build_seconds: float
    load_seconds: float
    reproduce: str
    started_seconds: float | None = None
    ended_seconds: float | None = None


class RungDocument(JsonDocument):
    """The best plain rung of the baseline ladder, confirmed against the original."""

    plan: list[TechniqueDocument]
    plan_name: str
    comparison: Comparison


class StepDocument(JsonDocument):
    """The winner's techniques up to and including this one, against the original."""

    technique: TechniqueDocument
    plan: list[TechniqueDocument]
    plan_name: str
    speedup: Interval | None
    restarts: int
    reason: str


class LeftOutDocument(StepDocument):
    """The winner less this technique, against the original; `worth` is the winner's speed-up over it."""

    worth: Interval | None


class AttributionDocument(JsonDocument):
    """The waterfall and the leave-one-outs, both in the order of the plan. `restarts` are pairs of fresh processes.
    `unfused` is the winner with its compiler told to fuse nothing."""

    steps: list[StepDocument]
    left_out: list[LeftOutDocument]
    unfused: LeftOutDocument | None = None


class ResultDocument(JsonDocument):
    """results.json. Speeds are ratios baseline_seconds / candidate_seconds; times are seconds, sizes are bytes.

    Keys that came later have defaults, so that a file which lacks them reads back.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    name: str
    status: Status
    kind: Literal["MEASURED"] = "MEASURED"
    speedup: Interval
    verdict: SpeedVerdict
    quality: Quality
    plan: list[TechniqueDocument]
    plan_name: str
    artifact: str | None
    comparison: Comparison
    best_rung: RungDocument | None
    ladder: list[TrialDocument]
    candidates: list[TrialDocument]
    noise_floor: float
    noise_ratios: list[float] = Field(default_factory=list)
    machine: dict[str, Any]
    environment: dict[str, Any]
    versions: dict[str, Any]
    conditions: dict[str, Any]
    notes: list[str]
    left_out: dict[str, str]
    fused: list[Fused]
    fused_note: str
    compute: Compute | None = None
    profiles: Profiles | None = None
    sensitivity: list[LayerSensitivity] = Field(default_factory=list)
    stored_weights: StoredWeights | None = None
    wall_seconds: float
    attribution: AttributionDocument | None
    break_even_calls: int | None
    cores: list[Cores] = Field(default_factory=list)


class ComparisonDocument(JsonDocument):
    """What `vivace measure --json` prints: `a` is the baseline and `b` the candidate of the comparison."""

    schema_version: Literal[1] = SCHEMA_VERSION
    kind: Literal["MEASURED"] = "MEASURED"
    a: str
    b: str
    speedup: Interval
    verdict: SpeedVerdict
    comparison: Comparison


class PreviewedPlan(JsonDocument):
    """One plan that would be tried, its predicted speed-up over the original, how long trying it would take, and the
    bytes of weights that a call is predicted to read."""

    plan: list[TechniqueDocument]
    plan_name: str
    predicted_speedup: float
    predicted_seconds: float
    predicted_weight_bytes: int = 0


class PreviewDocument(JsonDocument):
    """What `vivace optimize --dry-run --json` prints: nothing in it was measured. Plans in order of trying; those of
    `if_refused` where the answers of a plan without their training are refused."""

    schema_version: Literal[1] = SCHEMA_VERSION
    kind: Literal["PREDICTED"] = "PREDICTED"
    name: str
    plans: list[PreviewedPlan]
    seconds: float
    total_seconds: float
    disk_bytes: int
    left_out: dict[str, str]
    notes: list[str]
    if_refused: list[PreviewedPlan] = Field(default_factory=list)
    objective: Objective = Objective.LATENCY


def to_document(result: Result) -> ResultDocument:
    """The document of a result.

    `machine`, `environment` and `versions` come from the entries of these names in `result.conditions`.
    """
    rest = {key: value for key, value in result.conditions.items() if key not in _OWN_KEYS}
    trials = [_trial(trial, why_not_chosen(trial, result)) for trial in result.candidates]
    return ResultDocument(
        name=result.name,
        status=result.status,
        speedup=result.speedup,
        verdict=result.verdict,
        quality=result.quality,
        plan=technique_documents(result.plan),
        plan_name=str(result.plan),
        artifact=None if result.artifact is None else str(result.artifact),
        comparison=result.comparison,
        best_rung=None
        if result.best_rung is None
        else RungDocument(
            plan=technique_documents(result.best_rung.plan),
            plan_name=str(result.best_rung.plan),
            comparison=result.best_rung.comparison,
        ),
        ladder=[trial for trial in trials if trial.stage is TrialStage.LADDER],
        candidates=trials,
        noise_floor=result.noise_floor,
        noise_ratios=list(result.noise_ratios),
        machine=_mapping(result.conditions.get("machine")),
        environment=_mapping(result.conditions.get("environment")),
        versions=_mapping(result.conditions.get("versions")),
        conditions=rest,
        notes=list(result.notes),
        left_out=dict(result.left_out),
        fused=list(result.fused.groups) if result.fused else [],
        fused_note=result.fused.note if result.fused else "not listed",
        compute=result.compute,
        profiles=result.profiles,
        sensitivity=list(result.sensitivity),
        stored_weights=result.stored_weights,
        wall_seconds=result.wall_seconds,
        attribution=None if result.attribution is None else _attribution(result.attribution),
        break_even_calls=result.break_even_calls,
        cores=list(result.cores),
    )


def comparison_document(comparison: Comparison, a: str, b: str) -> ComparisonDocument:
    """The document of one comparison; `a` and `b` are what the user called the two."""
    return ComparisonDocument(a=a, b=b, speedup=comparison.speedup, verdict=comparison.verdict, comparison=comparison)


def preview_document(forecast: Forecast) -> PreviewDocument:
    """The document of a dry run: plans with their predicted speed-ups, what the search takes, what was left out."""
    return PreviewDocument(
        name=forecast.name,
        plans=_previewed(forecast.plans),
        seconds=forecast.seconds,
        total_seconds=forecast.total_seconds,
        disk_bytes=forecast.disk_bytes,
        left_out=dict(forecast.left_out),
        notes=list(forecast.notes),
        if_refused=_previewed(forecast.if_refused),
        objective=forecast.objective,
    )


def _previewed(plans: Sequence[Expected]) -> list[PreviewedPlan]:
    return [
        PreviewedPlan(
            plan=technique_documents(expected.plan),
            plan_name=str(expected.plan),
            predicted_speedup=expected.speedup,
            predicted_seconds=expected.seconds,
            predicted_weight_bytes=expected.weight_bytes,
        )
        for expected in plans
    ]


def _attribution(found: Attribution) -> AttributionDocument:
    return AttributionDocument(
        steps=[StepDocument(**_configuration(step)) for step in found.steps],
        left_out=[_left_out(part) for part in found.left_out],
        unfused=None if found.unfused is None else _left_out(found.unfused),
    )


def _left_out(part: LeftOut) -> LeftOutDocument:
    return LeftOutDocument(**_configuration(part), worth=part.worth)


def _configuration(part: Step | LeftOut) -> dict[str, Any]:
    return {
        "technique": _technique(part.technique),
        "plan": technique_documents(part.plan),
        "plan_name": str(part.plan),
        "speedup": part.speedup,
        "restarts": part.restarts,
        "reason": part.reason,
    }


def _technique(technique: Technique) -> TechniqueDocument:
    return TechniqueDocument(technique=technique.name(), settings=technique.settings())


def technique_documents(plan: Plan) -> list[TechniqueDocument]:
    """A plan, technique by technique."""
    return [_technique(technique) for technique in plan.techniques]


def _trial(trial: Trial, reason: str) -> TrialDocument:
    names = TrialDocument.model_fields.keys() - {"plan", "plan_name", "reason"}
    fields = {name: getattr(trial, name) for name in names}
    return TrialDocument(plan=technique_documents(trial.plan), plan_name=str(trial.plan), reason=reason, **fields)


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}
