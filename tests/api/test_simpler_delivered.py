"""A search whose race was lucky: what it added to the best plan and brings nothing is not delivered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import vivace as vv
from api.paced_plans import KINDS
from vivace.core.plan import Plan
from vivace.core.result import Status
from vivace.testing.tiny import PACED

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_the_plan_that_is_delivered_holds_no_technique_that_was_only_lucky_in_the_race(tmp_path: Path) -> None:
    pairs = PACED.pairs(batches=30, samples=40)
    work = vv.Workload(PACED.model(), inputs=PACED.inputs(8), data=pairs, metric=vv.metrics.accuracy, name="paced")
    names = [kind.name() for kind in KINDS]

    result = vv.optimize(
        work,
        time="6m",
        preset="quick",  # two finalists, both of them lucky
        out=tmp_path / "fast",
        only=names,
        extra={"api.paced_plans:KINDS": KINDS},
    )

    quick = Plan((KINDS[0](),))
    standings = {trial.plan: trial.rank_speedup for trial in result.candidates}
    assert sum(one > standings[quick] for one in standings.values()) >= 2  # so that the race alone would not choose it
    assert (result.status, str(result.plan)) == (Status.FASTER, "quick")
    assert "is left out beside quick" in " ".join(result.notes)
    assert json.loads((tmp_path / "fast" / "results.json").read_text())["notes"] == list(result.notes)
