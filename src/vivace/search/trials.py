"""Trials as JSON, for the journal: written when a trial ends, read back by a resumed search."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from vivace.core.measurement import Interval, Outcome
from vivace.core.plan import read_plan
from vivace.core.quality import Quality
from vivace.core.result import Trial, TrialStage
from vivace.core.technique import Technique


class _Record(BaseModel):
    """What is written of a trial beside its plan. An infinite bound or ratio is written as a text: JSON has no number
    for it, and a journal is read strictly."""

    model_config = ConfigDict(ser_json_inf_nan="strings")

    outcome: Outcome
    stage: TrialStage
    speedup: Interval | None
    quality: Quality | None
    reason: str = ""
    standing: float | None = None
    predicted_speedup: float | None = None
    size_bytes: int | None = None
    peak_memory_bytes: int | None = None
    build_seconds: float = 0.0
    load_seconds: float = 0.0
    reproduce: str = ""


def trial_to_json(trial: Trial) -> dict[str, Any]:
    """A trial without its confirmation: a resumed search confirms again from scratch."""
    record = _Record(**{name: getattr(trial, name) for name in _Record.model_fields})
    return {**json.loads(record.model_dump_json()), "plan": trial.plan.to_json()}


def trial_from_json(node: Mapping[str, Any], known: Mapping[str, type[Technique]]) -> Trial:
    """Read what `trial_to_json` wrote. Raises KeyError when a technique is not installed any more, and KeyError,
    TypeError, ValueError and the like for anything else."""
    record = _Record.model_validate({name: node[name] for name in _Record.model_fields if name in node})
    return Trial(read_plan(node["plan"], known), **{name: getattr(record, name) for name in _Record.model_fields})


def readable_trial(node: Any, known: Mapping[str, type[Technique]]) -> Trial | None:
    """A trial of an earlier session; None for one that cannot be read here, which is then tried anew."""
    try:
        return trial_from_json(node, known)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
