"""Trials as JSON, for the journal: written when a trial ends, read back by a resumed search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter

from vivace.core.measurement import Interval, Outcome
from vivace.core.plan import read_plan
from vivace.core.quality import Quality
from vivace.core.result import Trial, TrialStage
from vivace.core.technique import Technique

_QUALITY: TypeAdapter[Quality] = TypeAdapter(Quality)
_INTERVAL: TypeAdapter[Interval] = TypeAdapter(Interval)


class _Plain(BaseModel):
    """The fields of a trial that are written as they are."""

    reason: str = ""
    standing: float | None = None
    predicted_speedup: float | None = None
    size_bytes: int | None = None
    peak_memory_bytes: int | None = None
    build_seconds: float = 0.0
    load_seconds: float = 0.0
    reproduce: str = ""


_PLAIN = tuple(_Plain.model_fields)


def trial_to_json(trial: Trial) -> dict[str, Any]:
    """A trial without its confirmation: a resumed search confirms again from scratch."""
    return {
        **{name: getattr(trial, name) for name in _PLAIN},
        "plan": trial.plan.to_json(),
        "outcome": trial.outcome.value,
        "stage": trial.stage.value,
        "speedup": trial.speedup and _INTERVAL.dump_python(trial.speedup),
        "quality": trial.quality and _QUALITY.dump_python(trial.quality, mode="json"),
    }


def trial_from_json(node: Mapping[str, Any], known: Mapping[str, type[Technique]]) -> Trial:
    """Read what `trial_to_json` wrote. Raises KeyError when a technique is not installed any more, and KeyError,
    TypeError, ValueError and the like for anything else."""
    plain = _Plain(**{name: node[name] for name in _PLAIN if name in node})
    return Trial(
        plan=read_plan(node["plan"], known),
        outcome=Outcome(node["outcome"]),
        stage=TrialStage(node["stage"]),
        speedup=_INTERVAL.validate_python(node["speedup"]) if node["speedup"] else None,
        quality=_QUALITY.validate_python(node["quality"]) if node["quality"] else None,
        **plain.model_dump(),
    )


def readable_trial(node: Any, known: Mapping[str, type[Technique]]) -> Trial | None:
    """A trial of an earlier session; None for one that cannot be read here, which is then tried anew."""
    try:
        return trial_from_json(node, known)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
