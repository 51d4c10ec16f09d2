"""A trial survives the journal."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from search.toys import KNOWN, Engine, Halve
from vivace.core.measurement import Interval, Outcome
from vivace.core.plan import Plan
from vivace.core.quality import Fidelity, Quality, QualityVerdict
from vivace.core.result import Trial, TrialStage
from vivace.search.journal import Journal
from vivace.search.trials import trial_from_json, trial_to_json


def test_a_trial_read_back_is_the_same() -> None:
    fidelity = Fidelity(math.inf, 1.0, math.inf, 1.0, 0.99, 300)
    quality = Quality(QualityVerdict.HELD, "Tango", 300, 0.01, 0.98, 0.98, 0.0, 0.008, None, fidelity)
    speedup = Interval(2, 1.9, 2.1)
    plan = Plan.of([Halve(), Engine()])
    trial = Trial(plan, Outcome.OK, TrialStage.SEARCH, "", speedup, 2.1, 2.5, quality, None, 10, 20)

    assert trial_from_json(json.loads(json.dumps(trial_to_json(trial))), KNOWN) == trial


def test_a_journal_holds_trials_whose_bounds_and_ratios_are_infinite(tmp_path: Path) -> None:
    same = Quality(QualityVerdict.HELD, "referee", 64, 0.01, fidelity=Fidelity(math.inf, 1.0, math.inf, 1.0, 0.95, 64))
    trial = Trial(Plan.of([Engine()]), Outcome.OK, TrialStage.SEARCH, "", Interval(2, 0, math.inf), quality=same)
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.append({"kind": "trial", "trial": trial_to_json(trial)})

    with Journal(tmp_path / "journal.jsonl") as again:
        assert [trial_from_json(record["trial"], KNOWN) for record in again.of_kind("trial")] == [trial]


def test_a_trial_of_a_technique_that_is_gone_is_an_error() -> None:
    node = trial_to_json(Trial(Plan.of([Engine()]), Outcome.CRASHED, TrialStage.SEARCH, "SIGSEGV"))

    with pytest.raises(KeyError):
        trial_from_json(node, {})
