"""Made-up documents for the page: a rich one with every figure filled, hostile texts, and results at the extremes."""

from __future__ import annotations

import random
from typing import Any

from vivace.core.compute import Bound, Compute, OperatorTime, Profile, Profiles, Reach
from vivace.core.layer import Fused, LayerSensitivity
from vivace.core.measurement import ArmTimes, Comparison, Interval, Outcome, Quantile, SpeedVerdict
from vivace.core.quality import Decisions, Fidelity, Flip, Quality, QualityVerdict
from vivace.core.result import Status, TrialStage
from vivace.report.results import (
    AttributionDocument,
    LeftOutDocument,
    ResultDocument,
    RungDocument,
    StepDocument,
    TechniqueDocument,
    TrialDocument,
)

HOSTILE = "<script>alert(1)</script>\"'></svg></style>&{{7*7}}\u202egnp\u2066\x00\x1b[31m\u2028\nend"
ENDINGS = (
    (Outcome.OK, QualityVerdict.HELD, ""),
    (Outcome.NOT_FASTER, QualityVerdict.HELD, "its upper bound is below the leader's lower bound"),
    (Outcome.QUALITY_FAILED, QualityVerdict.NOT_HELD, "drop 0.034 is above the budget 0.01"),
    (Outcome.QUALITY_UNKNOWN, QualityVerdict.CANNOT_TELL, "too few samples; the data leave 598 for the verdict"),
    (Outcome.CRASHED, None, "SIGSEGV while converting; the last line was: terminate called without an exception"),
    (Outcome.TIMEOUT, None, "compile took longer than 300 s"),
    (Outcome.UNSUPPORTED, None, "needs a captured graph with a linear layer of at least 64 inputs"),
)
PRECISIONS = ("nncf-static-int8", "openvino-bfloat16", "onnx-dynamic-int8", "bfloat16", "torchao-weight-only-int8")
ENGINES = ("openvino", "onnx-runtime", "inductor")


def interval(value: float, width: float = 0.03) -> Interval:
    return Interval(value, value * (1 - width), value * (1 + width))


def technique(name: str, **settings: Any) -> TechniqueDocument:
    return TechniqueDocument(technique=name, settings=settings)


def plan_name(plan: list[TechniqueDocument]) -> str:
    named = [(part.technique, ", ".join(f"{k}={v}" for k, v in part.settings.items())) for part in plan]
    return " + ".join(f"{name}({settings})" if settings else name for name, settings in named) or "original"


def arm(median: float, seed: int, calls: int = 2400) -> ArmTimes:
    chance = random.Random(seed)
    spread = sorted(
        median * chance.lognormvariate(0, 0.08) * (1.6 if chance.random() < 0.03 else 1) for _ in range(201)
    )
    spread[100] = median
    spread.sort()
    quantiles = tuple(
        Quantile(share, spread[int(share * 200)], spread[int(share * 200) - 3], high)
        for share, high in ((0.5, spread[104]), (0.9, spread[186]), (0.99, None))
    )
    return ArmTimes(
        median, spread[180], spread[198], calls, 0.42, median * 30, True, 310_000_000, (), quantiles, tuple(spread)
    )


def comparison(speedup: float = 2.31, verdict: SpeedVerdict = SpeedVerdict.FASTER) -> Comparison:
    chance = random.Random(7)
    ratios = tuple(tuple(speedup * chance.lognormvariate(0, 0.02) for _ in range(14)) for _ in range(3))
    base = 0.00277
    return Comparison(interval(speedup, 0.017), verdict, arm(base, 1), arm(base / speedup, 2), 42, 3, 0.008, ratios)


def fidelity() -> Fidelity:
    return Fidelity(41.0, 0.9999, 20.0, 0.998, 0.992, 598)


def quality(verdict: QualityVerdict, drop: float = 0.0012, **more: Any) -> Quality:
    return Quality(
        verdict, "Tango's score test", 598, 0.01, 0.985, 0.985 - drop, drop, drop + 0.004, fidelity=fidelity(), **more
    )


def decisions() -> Decisions:
    flips = (
        Flip(3, 8, 14, 6, 8), Flip(8, 3, 6, 2, 4), Flip(9, 4, 3, 0, 3), Flip(1, 7, 2, 1, 0), Flip(0, 6, 1, 1, 0),
    )  # fmt: skip
    return Decisions(tuple((label, 60 - label % 3) for label in range(10)), flips)


WINNER = [technique("fold-conv-batchnorm"), technique("nncf-static-int8", keep=2), technique("threads", count=2),
          technique("openvino")]  # fmt: skip


def trial(number: int, reason: str | None = None) -> TrialDocument:
    """A candidate of some kind, by its number."""
    chance = random.Random(number)
    plan = [technique(chance.choice(PRECISIONS)), technique("threads", count=1 + number % 4)]
    plan += [technique(ENGINES[number // 4 % 3])] if number % 5 else []
    outcome, verdict, why = ENDINGS[number % len(ENDINGS)]
    raced = verdict is not None
    speed = chance.lognormvariate(0.2, 0.4)
    lost = {QualityVerdict.NOT_HELD: 0.034, QualityVerdict.CANNOT_TELL: 0.008}.get(verdict, chance.random() / 300)
    return TrialDocument(
        plan=plan,
        plan_name=plan_name(plan),
        outcome=outcome,
        stage=TrialStage.SEARCH,
        reason=why if reason is None else reason,
        speedup=interval(speed, 0.05) if raced else None,
        standing=speed * 0.98 if raced and number % 2 else None,
        predicted_speedup=1 + chance.random() * 3,
        quality=quality(verdict, lost) if verdict else None,
        confirmed=None,
        size_bytes=1_000_000 + 1000 * number,
        peak_memory_bytes=200_000_000 + 1_000_000 * number,
        build_seconds=3.2 + chance.random(),
        load_seconds=0.4,
        reproduce=f"vivace optimize TARGET --plan '{number}'",
        started_seconds=3.0 * number,
        ended_seconds=3.0 * number + 2.4,
    )


def winning_trial(number: int) -> TrialDocument:
    return trial(number).model_copy(
        update={
            "plan": WINNER, "plan_name": plan_name(WINNER), "outcome": Outcome.OK, "reason": "",
            "stage": TrialStage.FINALIST, "speedup": interval(2.4, 0.05), "confirmed": comparison(),
            "quality": quality(QualityVerdict.HELD), "size_bytes": 1_234_567,
        }
    )  # fmt: skip


def attribution() -> AttributionDocument:
    speeds = (interval(1.21), interval(2.05), interval(1.98), interval(2.31))
    worths = (interval(1.05, 0.07), interval(1.7), None, interval(1.35))
    shared = [
        {"technique": part, "plan": WINNER[: place + 1], "plan_name": plan_name(WINNER[: place + 1]), "restarts": 1}
        for place, part in enumerate(WINNER)
    ]
    steps = [StepDocument(**one, speedup=speed, reason="") for one, speed in zip(shared, speeds, strict=True)]
    left_out = [
        LeftOutDocument(**one, speedup=None, worth=worth, reason="" if worth else "no time was left")
        for one, worth in zip(shared, worths, strict=True)
    ]
    return AttributionDocument(steps=steps, left_out=left_out)


def profiles(layers: int = 24) -> Profiles:
    """Three operators a layer before; one after, which the engine fused, and one that it names no layer for."""
    chance = random.Random(3)
    before, after = [], [OperatorTime("Reorder", (), 4e-5)]
    for place in range(layers):
        names = tuple(f"layer{place // 4}.{place % 4}.{kind}" for kind in ("conv", "bn", "relu"))
        seconds, moved = chance.lognormvariate(-10, 0.8), 90_000.0 * (1 + place % 7)
        flops = seconds * 9e10 * chance.random()
        before += [
            OperatorTime("aten::convolution", names[:1], seconds, flops, moved),
            OperatorTime("aten::batch_norm", names[1:2], seconds / 4),
            OperatorTime("aten::relu", names[2:], seconds / 9),
        ]
        after.append(OperatorTime("Convolution", names, seconds / 3, flops, moved / 3))
    total = sum(one.seconds for one in before), sum(one.seconds for one in after)
    return Profiles(Profile("torch", total[0] * 1.3, tuple(before)), Profile("openvino", total[1] * 1.1, tuple(after)))


def sensitivity(layers: int = 24) -> list[LayerSensitivity]:
    chance = random.Random(5)
    found = [
        LayerSensitivity(f"layer{n // 4}.{n % 4}.conv", 12 + 30 * chance.random(), chance.random() / 10, n in (0, 17))
        for n in range(layers)
    ]
    return [*found, LayerSensitivity("head", float("inf"), 0.002, False)]


def compute() -> Compute:
    return Compute(
        57_233_408.0,
        Reach(0.00277, 20.6, "f32", 2, 208.0, 19.5, 0.0003, 0.1, Bound.OVERHEAD),
        Reach(0.0012, 47.6, "int8", 2, 900.0, 19.5, 0.0008, 0.66, Bound.ARITHMETIC),
        "MEASURED by vivace doctor on this machine",
    )


def rich(candidates: int = 40, layers: int = 24) -> ResultDocument:
    """A result with every figure filled."""
    trials = [*(trial(number) for number in range(candidates - 1)), winning_trial(candidates - 1)]
    return ResultDocument(
        name="digits-cnn",
        status=Status.FASTER,
        speedup=comparison().speedup,
        verdict=SpeedVerdict.FASTER,
        quality=quality(QualityVerdict.HELD, decisions=decisions()),
        plan=WINNER,
        plan_name=plan_name(WINNER),
        artifact="fast",
        comparison=comparison(),
        best_rung=RungDocument(plan=WINNER[2:3], plan_name="threads(count=2)", comparison=comparison(1.3)),
        ladder=[],
        candidates=trials,
        noise_floor=0.008,
        noise_ratios=[random.Random(n).lognormvariate(0, 0.01) for n in range(20)],
        machine={"processor": "AMD EPYC 9554P", "cores_allowed": 2, "instructions": ["avx2", "avx512f"]},
        environment={},
        versions={"torch": "2.13.0", "openvino": "2026.4.1"},
        conditions={"batch_size": 16, "objective": "latency"},
        notes=["plans that were slower than the original: 6"],
        left_out={"tf32": "needs a CUDA device", "cuda-graphs": "needs a CUDA device"},
        fused=[Fused("Convolution", ("layer0.0.conv", "layer0.0.bn", "layer0.0.relu"))],
        fused_note="Inductor's fusions are not listed",
        compute=compute(),
        profiles=profiles(layers),
        sensitivity=sensitivity(layers),
        wall_seconds=3.0 * candidates + 30,
        attribution=attribution(),
        break_even_calls=2345,
    )


def kept(candidates: int = 0) -> ResultDocument:
    """A result in which the original was kept, with little beside it."""
    same = comparison(1.001, SpeedVerdict.UNDECIDED)
    update: dict[str, Any] = {
        "status": Status.NOTHING_FASTER, "plan": [], "plan_name": "original", "comparison": same,
        "speedup": same.speedup, "verdict": same.verdict, "candidates": [trial(n) for n in range(candidates)],
        "quality": Quality(QualityVerdict.HELD, "the original itself", 598, 0.0), "best_rung": None,
        "compute": None, "profiles": None, "sensitivity": [], "attribution": None, "break_even_calls": None,
        "noise_ratios": [],
    }  # fmt: skip
    return rich(1).model_copy(update=update)


def hostile() -> ResultDocument:
    """The rich result with a hostile text in every string that a model, its maker or a library can choose."""
    return ResultDocument.model_validate(_poisoned(rich(9, 6).model_dump(), ()))


FIXED = ("status", "kind", "verdict", "outcome", "stage", "bound", "precision", "objective")
"""Keys whose values are one of few words."""


def _poisoned(node: Any, path: tuple[str, ...]) -> Any:
    if isinstance(node, dict):
        return {key: value if key in FIXED else _poisoned(value, (*path, key)) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_poisoned(value, path) for value in node]
    return f"{node} {HOSTILE}" if isinstance(node, str) else node


def extreme() -> ResultDocument:
    """Bounds without end, times of nothing, a candidate that takes for ever."""
    endless = Interval(2.0, 0.0, float("inf"))
    found = rich(8, 2).model_dump()
    found["speedup"] = found["comparison"]["speedup"] = endless
    found["noise_floor"] = 1e9
    found["noise_ratios"] = [1.0, 1e9, 1e-9]
    found["comparison"]["ratios"] = [[1e-12, 1.0, 1e12]]
    for one in found["candidates"]:
        one["speedup"] = endless
    found["candidates"][0]["speedup"] = Interval(0.0, 0.0, 0.0)
    found["profiles"]["original"]["call_seconds"] = 0.0
    for one in found["profiles"]["winner"]["operators"]:
        one["seconds"] = 0.0
    found["attribution"]["steps"][0]["speedup"] = endless
    found["attribution"]["left_out"][0]["worth"] = endless
    found["quality"]["drop_upper"] = float("inf")
    found["sensitivity"] = [{"layer": "only", "sqnr_db": float("inf"), "seconds_share": 0.0, "kept": True}]
    found["break_even_calls"] = 10**18
    return ResultDocument.model_validate(found)
