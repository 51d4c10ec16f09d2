"""Made-up documents of trainings for the page: a rich one with every figure filled, one trained as given, extremes."""

from __future__ import annotations

import math
import random
from typing import Any

from planted_results import HOSTILE, arm, interval, plan_name, technique

from vivace.core.measurement import Comparison, Interval, Outcome, SpeedVerdict
from vivace.core.quality import QualityVerdict
from vivace.core.training.bound import Bandwidth, OperatorWork, StepBound, StepRoofline, Work
from vivace.core.training.course import Course, EpochEnd, Span
from vivace.core.training.parity import Agreement, Curve, Kind
from vivace.core.training.run import Count, Diagnosis, Rank, Scaling
from vivace.report.training import ParityDocument, StepTrialDocument, TrainingDocument

CACHE, CHANNELS, FUSED, COMPILED = (
    technique("sample-cache"), technique("channels-last"), technique("fused-optimizer"),
    technique("compiled-training", scope="loss"),
)  # fmt: skip
PLAN = [CACHE, FUSED, COMPILED]
STEPS, EPOCHS = 960, 8


def diagnosis(**changes: Any) -> Diagnosis:
    """A step of which more than half is waiting for its batch."""
    fields: dict[str, Any] = {
        "steps": 20, "threads": 2, "step_seconds": 4e-3, "input_seconds": 2.5e-3, "forward_seconds": 4e-4,
        "backward_seconds": 7e-4, "update_seconds": 4e-4, "overhead_seconds": 9e-4, "evaluate_seconds": 1.2e-3,
        "flops": 26e6, "ceiling_gflops": 150.0, "parameter_bytes": 40_000, "gradient_bytes": 40_000,
        "optimizer_bytes": 80_000, "activation_bytes": 230_000, "bound": StepBound.INPUT,
        "evidence": "62% of a step is waiting for its batch",
    }  # fmt: skip
    return Diagnosis(**{**fields, **changes})


def roofline() -> StepRoofline:
    """A step whose products compute and whose update moves data."""
    operators = (
        OperatorWork("backward", "mm", StepBound.COMPUTE, Work(4, 5e-4, 20e9, 3e6, 3e-4, 1e-5)),
        OperatorWork("update", "addcdiv_", StepBound.MEMORY, Work(6, 2e-4, 0.0, 2e6, 0.0, 1.6e-4)),
    )
    spent = {**{bound.value: 0.0 for bound in StepBound}, "input": 2.5e-3, "compute": 1e-3, "memory": 5e-4}
    return StepRoofline(operators, (Bandwidth(1 << 20, 90.0, 60.0), Bandwidth(1 << 28, 12.5, 1.5)), 2e-6, spent)


def diagnosis_after() -> Diagnosis:
    return diagnosis(
        step_seconds=9e-4, input_seconds=8e-5, forward_seconds=2e-4, backward_seconds=4e-4, update_seconds=2.2e-4,
        overhead_seconds=5e-4, evaluate_seconds=None, activation_bytes=140_000, bound=StepBound.OVERHEAD,
        evidence="in 56% of a step no operator runs: it is Python and launching",
    )  # fmt: skip


def agreements() -> list[Agreement]:
    """Gradients, updates and buffers of a dozen tensors in three steps, the nearest to its limit first."""
    chance = random.Random(11)
    found = [
        Agreement(kind, f"layer{n // 2}.{'weight' if n % 2 else 'bias'}", step, 1.0, 0.0, 1e-7, 4e-6)
        for step in range(3)
        for kind in (Kind.GRADIENT, Kind.UPDATE, Kind.BUFFER)
        if not (kind is Kind.UPDATE and step)
        for n in range(12)
    ]
    found = [
        Agreement(one.kind, one.name, one.step, 1 - 1e-9, error, error / 2, 4e-6 * chance.lognormvariate(0, 0.5))
        for one in found
        for error in (1e-7 * chance.lognormvariate(0, 1.2) if chance.random() < 0.9 else 0.0,)
    ]
    found.sort(key=lambda one: -one.error / one.allowed)
    return [*found, *(Agreement(Kind.BATCH, f"batch {n}", n, 1.0, 0.0, 0.0, 0.0) for n in range(3))]


def curve(start: float, end: float) -> Curve:
    chance = random.Random(13)
    sides = [
        tuple(tuple(end + (start - end) * math.exp(-step / 9) + 0.02 * chance.random() for step in range(40))
              for _ in range(3))
        for _ in range(2)
    ]  # fmt: skip
    return Curve(sides[0], sides[1], Interval(0.001, -0.004, 0.006), 0.03, QualityVerdict.HELD)


def proof(**changes: Any) -> ParityDocument:
    found = agreements()
    fields: dict[str, Any] = {
        "verdict": QualityVerdict.HELD, "reason": "all of 36 tensors agree within what their own rounding allows",
        "reference": "float64", "tensors": len(found), "agreements": found,
        "notes": ["dropout is off while gradients are compared"], "curve": curve(2.3, 0.2), "scores": None,
    }  # fmt: skip
    return ParityDocument(**{**fields, **changes})


def trials() -> list[StepTrialDocument]:
    refused = "gradient of layer0.weight in step 0: relative error 0.5 where 4e-06 is allowed, and 11 more"
    rows: tuple[Any, ...] = (
        ([CACHE], Outcome.OK, interval(2.6), 1.2, True, ""),
        ([CACHE, CHANNELS], Outcome.UNSUPPORTED, None, 0.0, False, "the model has no weight of four dimensions"),
        ([CACHE, technique("bfloat16")], Outcome.QUALITY_FAILED, None, 0.0, False, refused),
        ([CACHE, technique("threads", count=1)], Outcome.NOT_FASTER, interval(0.8), 0.9, False,
         "0.8 [0.776, 0.824] over sample-cache, which is not clearly faster"),
        ([CACHE, FUSED], Outcome.OK, interval(1.2), 1.3, True, ""),
        ([CACHE, FUSED, technique("compiled-training", scope="step")], Outcome.OK, interval(1.01), 31.0, False,
         "1.01 [0.98, 1.04] over sample-cache + fused-optimizer, which is not clearly faster"),
        (PLAN, Outcome.OK, interval(1.31), 24.0, True, ""),
    )  # fmt: skip
    return [
        StepTrialDocument(plan=plan, plan_name=plan_name(plan), outcome=outcome, speedup=speedup,
                          prepare_seconds=seconds, accepted=accepted, reason=reason)
        for plan, outcome, speedup, seconds, accepted, reason in rows
    ]  # fmt: skip


def course(steps: int = STEPS, epochs: int = EPOCHS, length: int = 2) -> Course:
    chance = random.Random(17)
    spans = []
    for end in range(length, steps + 1, length):
        loss = 0.15 + 2.1 * math.exp(-end / (steps / 5)) + 0.05 * chance.random()
        spans.append(Span(end, length, loss, loss * 0.9, loss * 1.12, 9.2e-4 + 1e-4 * chance.random(), end * 1e-3))
    ends = [EpochEnd(steps * n // epochs, steps * n // epochs * 1e-3, 1.3e-3) for n in range(1, epochs + 1)]
    return Course(tuple(spans), tuple(ends))


def comparison(speedup: float = 4.1) -> Comparison:
    chance = random.Random(19)
    ratios = tuple(tuple(speedup * chance.lognormvariate(0, 0.02) for _ in range(12)) for _ in range(3))
    base = 0.0041
    return Comparison(interval(speedup, 0.02), SpeedVerdict.FASTER, arm(base, 1), arm(base / speedup, 2), 36, 3, 0.012,
                      ratios)  # fmt: skip


def scaling() -> Scaling:
    """Two, four and eight copies that gain less and less, and a layout that loses."""
    counts = [Count(n, f"data={n}", 4e-3, 4e-3 / ratio, interval(ratio)) for n, ratio in ((2, 1.7), (4, 2.6), (8, 3.5))]
    return Scaling(8, 4e-3, 4e-3 / 3.5, (*counts, Count(4, "shard=4", 4e-3, 5e-3, interval(0.8))))


def ranks() -> list[Rank]:
    """Eight processes, each with a copy of the model."""
    return [Rank(n, {"data": n}, 1, 40_000, 80_000, 310_000_000 + n) for n in range(8)]


RESTART = "rank 3 was killed by SIGKILL; no restart was left, so 4 processes go on"


def rich() -> TrainingDocument:
    """A training with every figure filled."""
    return TrainingDocument(
        schema_version=1, name="digits-mlp", plan=PLAN, plan_name=plan_name(PLAN), speedup=comparison().speedup,
        comparison=comparison(), parity=proof(), diagnosis=diagnosis(), trials=trials(),
        losses=[0.15 + 1.6 * math.exp(-n) for n in range(EPOCHS)],
        scores=[0.97 - 0.5 * math.exp(-n) for n in range(EPOCHS)],
        steps=STEPS, seconds=1.4, search_seconds=71.0, resumed_steps=0, reached=True,
        conditions={
            "python": "3.12.1", "versions": {"torch": "2.13.0", "numpy": "2.3.0"}, "threads": 2, "affinity": [0, 1],
            "load_average": [0.4, 0.5, 0.6], "processor_ticks": {"total": 5, "steal": 0}, "throttled_periods": 0,
            "machine": {"processor": "AMD EPYC 9554P", "cores_allowed": 2, "instructions": ["avx2", "avx512f"]},
            "job": {"batch_size": 64, "epochs": 30, "seed": 0, "shuffle": True},
            "options": {"until": 0.95, "time": "2m", "only": [], "without": ["bfloat16"], "changed": False},
        },
        out="run", diagnosis_after=diagnosis_after(),
        noise_ratios=[random.Random(n).lognormvariate(0, 0.01) for n in range(16)], break_even_steps=22_900,
        course=course(), scaling=scaling(), ranks=ranks(), restarts=[RESTART],
    )  # fmt: skip


def as_given() -> TrainingDocument:
    """A training for which no technique was tried, and of which little else is known, as an older file has it."""
    update: dict[str, Any] = {
        "plan": [], "plan_name": "original", "speedup": None, "comparison": None, "parity": None, "trials": [],
        "diagnosis": diagnosis(ceiling_gflops=None, evaluate_seconds=None), "losses": [], "scores": [], "reached": None,
        "diagnosis_after": None, "noise_ratios": [], "break_even_steps": None, "course": Course(), "conditions": {},
        "out": None, "scaling": None, "ranks": [], "restarts": [],
    }  # fmt: skip
    return rich().model_copy(update=update)


def refused() -> TrainingDocument:
    """A training whose plan was asked for and trains differently."""
    wrong = [
        Agreement(Kind.GRADIENT, "layer0.weight", 0, 0.7, 0.5, 1e-7, 4e-6),
        Agreement(Kind.GRADIENT, "layer0.bias", 0, 0.0, math.inf, 0.0, 0.0, "there is none, and the original has one"),
        Agreement(Kind.BATCH, "batch 1", 1, 0.0, math.inf, 0.0, 0.0, "its values differ from the original's"),
    ]
    told = proof(verdict=QualityVerdict.NOT_HELD, reason=f"{wrong[0]}, and 2 more", agreements=[*wrong, *agreements()],
                 curve=None)  # fmt: skip
    return as_given().model_copy(update={"parity": told})


def hostile() -> TrainingDocument:
    """The rich training with a hostile text in every string that a job, its maker or a library can choose."""
    return TrainingDocument.model_validate(_poisoned(rich().model_dump()))


FIXED = ("outcome", "verdict", "bound", "kind")


def _poisoned(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: value if key in FIXED else _poisoned(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_poisoned(value) for value in node]
    return f"{node} {HOSTILE}" if isinstance(node, str) else node


def extreme() -> TrainingDocument:
    """Times of nothing, bounds without end, losses far apart, one step, one block."""
    endless = Interval(2.0, 0.0, math.inf)
    node = rich().model_dump()
    for name in ("input", "forward", "backward", "update", "step", "overhead"):
        node["diagnosis"][f"{name}_seconds"] = 0.0
    node["diagnosis_after"] |= {"whole_seconds": 1e3, "step_seconds": 1e3, "forward_seconds": 0.0, "flops": 0.0}
    node["diagnosis_after"] |= {"backward_seconds": 0.0, "update_seconds": 0.0, "activation_bytes": 10**15}
    node["comparison"] |= {"speedup": endless, "ratios": [[1e-12, 1.0, 1e12]], "noise_floor": 1e9}
    for trial in node["trials"]:
        trial["speedup"] = endless
    node["trials"][0]["speedup"] = Interval(0.0, 0.0, 0.0)
    node["course"]["spans"] = [{"step": 1, "steps": 1, "loss": 1e30, "lowest": -1e30, "highest": 1e30,
                                "step_seconds": None, "elapsed_seconds": 0.0}]  # fmt: skip
    node["scaling"] |= {"step_seconds": 0.0, "counts": []}
    node["losses"], node["scores"] = [1e30], [-1e9]
    node["parity"]["curve"] = {"original": [[1.0]], "plan": [[2.0]], "difference": endless, "margin": 0.0,
                               "verdict": "HELD"}  # fmt: skip
    return TrainingDocument.model_validate(node)
