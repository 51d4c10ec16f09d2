"""How much each layer of the original suffers from int8, and which of them the winner keeps in a higher precision."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vivace.api.overhead import FAILURES
from vivace.core.facts import Fact
from vivace.core.layer import LayerSensitivity
from vivace.core.plan import Plan
from vivace.core.work import Work
from vivace.measure.process import Limits, Phase, Worker
from vivace.runtimes import store
from vivace.search.caches import compiler_variables
from vivace.search.laboratory import BUILDER_ENTRY
from vivace.search.prepare import Prepared
from vivace.search.schedule import Schedule
from vivace.techniques import sensitivity

INTEGER = "int8"
SPARE_SECONDS = 2.0


def sensitivity_of(plan: Plan, program: Path, prepared: Prepared, schedule: Schedule) -> tuple[LayerSensitivity, ...]:
    """The layers of the model that the winner's program was made of, the one to keep in float first.

    Read where the search ranked them, for the winner or for the original. Where it did not, and the winner is in int8,
    they are ranked now, in a worker, if that is likely to end before the artifact is due. Empty where there is none.
    Never raises for what a worker does.
    """
    described = store.describe(program)
    found = known(prepared.work, described.lineage)
    if found is None and is_integer(plan, prepared.work):
        rank(prepared, schedule)
        found = known(prepared.work, ())
    return told(found or [], plan, prepared.work, described.quantized)


def known(work: Work, lineage: tuple[str, ...]) -> list[sensitivity.Sensitivity] | None:
    """What was ranked in this run for a model that became one of this lineage, the latest before it was quantized."""
    steps = (lineage[:count] for count in range(len(lineage), -1, -1))
    return next((found for step in steps if (found := sensitivity.kept_ranking(work, step)) is not None), None)


def told(
    found: list[sensitivity.Sensitivity], plan: Plan, work: Work, quantized: Sequence[str]
) -> tuple[LayerSensitivity, ...]:
    """What was ranked, with whether the program keeps each layer in a higher precision: those that no technique put
    into integers (`quantized`). Where its techniques do not tell, those that their settings and the user named."""
    integers = set(quantized)
    if not integers and is_quantized(plan):
        worst = max((getattr(technique, "keep", 0) for technique in plan), default=0)
        integers = {one.layer.name for one in found[worst:]} - set(work.keep)
    return tuple(
        LayerSensitivity(one.label, one.sqnr_db, one.seconds_share, one.layer.name not in integers) for one in found
    )


def is_quantized(plan: Plan) -> bool:
    """Whether a technique of a plan puts weights into integers."""
    return any(Fact.UNQUANTIZED in technique.breaks for technique in plan)


def is_integer(plan: Plan, work: Work) -> bool:
    """Whether a plan computes products in int8."""
    return any(technique.rewrite(work.cost).precision == INTEGER for technique in plan)


def rank(prepared: Prepared, schedule: Schedule) -> None:
    """Have a worker rank the original's layers, if there is data and time for it; what it finds, `known` reads."""
    left = schedule.left() - schedule.publish_seconds(None)
    if prepared.work.calibration is None or left < ranking_seconds(prepared, schedule):
        return
    folder = prepared.work.folder
    arguments = {"work": prepared.work.to_json(), "original": str(prepared.program)}
    try:
        with Worker(
            folder / "sensitivity-log", Limits().within(left), compiler_variables(folder), fresh=False
        ) as worker:
            worker.open(BUILDER_ENTRY, arguments, phase=Phase.LOAD)
            left = schedule.left() - schedule.publish_seconds(None)
            worker.call("rank_layers", {}, Phase.MEASURE, max(0.0, left))
    except FAILURES:
        return


def ranking_seconds(prepared: Prepared, schedule: Schedule) -> float:
    """What ranking is likely to take: for each layer, what follows it runs again, half of the graph on average."""
    calls = -(-sensitivity.SAMPLES // max(1, prepared.batch_size))
    runs = calls * (2 + len(prepared.work.layers) / 2)
    return schedule.opening_seconds + SPARE_SECONDS + runs * schedule.call_seconds
