"""Honest records of the other kinds that are read back: a search's journal, a machine's ceilings, a plan."""

from __future__ import annotations

import json
import os
from pathlib import Path

from vivace.core.machine import Ceiling, Machine
from vivace.core.measurement import Interval, Outcome
from vivace.core.plan import Plan
from vivace.core.registry import technique
from vivace.core.result import Trial, TrialStage
from vivace.devices import ceiling_store
from vivace.search.journal import Journal
from vivace.search.trials import trial_to_json

MACHINE = Machine(
    "p", "x86_64", (), 2, 2, 1 << 30, "Linux", ceilings=(Ceiling(1, {"f32": 100.0, "bf16": 200.0}, 10.0),)
)


def plan() -> Plan:
    """A plan with settings."""
    return Plan((technique("threads")(count=2), technique("inference-mode")()))


def trial() -> Trial:
    """A trial with something in most of its fields."""
    interval = Interval(1.5, 1.4, 1.6)
    return Trial(plan(), Outcome.OK, TrialStage.SEARCH, speedup=interval, standing=1.5, size_bytes=100)


def write(folder: Path) -> None:
    """Keep one of each in a folder: journal.jsonl, plan.json, and the ceilings as a cache folder has them."""
    folder.mkdir(parents=True)
    with Journal(folder / "journal.jsonl") as journal:
        journal.append({"kind": "header", "identity": {"job": "x"}})
        journal.append({"kind": "trial", "trial": trial_to_json(trial())})
    (folder / "plan.json").write_text(json.dumps(plan().to_json()))
    before = os.environ.get("XDG_CACHE_HOME", "")
    os.environ["XDG_CACHE_HOME"] = str(folder)
    try:
        assert ceiling_store.keep(MACHINE)
    finally:
        os.environ["XDG_CACHE_HOME"] = before
