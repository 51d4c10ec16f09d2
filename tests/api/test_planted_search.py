"""Planted bad candidates: the search survives each, names its outcome, and never delivers a wrong one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import vivace as vv
from vivace.api.request import options_of
from vivace.core.measurement import Outcome
from vivace.core.plan import Plan
from vivace.core.quality import Budget, QualityVerdict
from vivace.core.result import Status, Trial, TrialStage
from vivace.core.technique import Technique
from vivace.measure.process import Limits
from vivace.search.laboratory import Laboratory
from vivace.search.prepare import prepare
from vivace.testing import planted
from vivace.testing.tiny import PACED

LIMITS = Limits(load=12, convert=12, first_call=5, verify=30, measure=60, memory_bytes=2_500_000_000)
EXTRA = {"vivace.testing.planted:PLANTED": planted.PLANTED}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def workload() -> vv.Workload:
    """A model that takes 10 ms a call, with labels that it always gets right."""
    pairs = PACED.pairs(batches=30, samples=40)
    return vv.Workload(PACED.model(), inputs=PACED.inputs(8), data=pairs, metric=vv.metrics.accuracy, name="paced")


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    """The paced model, prepared, with its original's arm alive."""
    folder = tmp_path_factory.mktemp("run")
    options = options_of(workload(), budget=Budget(drop=0.0005), extra=EXTRA, limits=LIMITS)
    with Laboratory(prepare(workload(), folder), options, folder) as made:
        made.learn_original()
        yield made


def attempt(laboratory: Laboratory, technique: Technique) -> Trial:
    return laboratory.attempt(Plan((technique,)), TrialStage.SEARCH, 120)


@pytest.mark.parametrize(
    ("technique", "outcome", "reason"),
    [
        (planted.CrashAtConvert(), Outcome.CRASHED, "SIGSEGV in convert"),
        (planted.CrashAtFirstCall(), Outcome.CRASHED, "SIGSEGV in first_call"),
        (planted.CrashAtCall(), Outcome.CRASHED, "SIGSEGV"),
        (planted.HangInCompile(), Outcome.TIMEOUT, "load took longer than 12 seconds"),
        (planted.IgnoresTermination(), Outcome.TIMEOUT, "first_call took longer than 5 seconds"),
        (planted.Leak(), Outcome.OOM, ""),
        (planted.NanAnswer(), Outcome.NONFINITE, "NaN"),
        (planted.ConstantAnswer(), Outcome.QUALITY_FAILED, ""),
        (planted.BatchDependentAnswer(), Outcome.WRONG_OUTPUT, "depend on their neighbours"),
        (planted.CachedAnswer(), Outcome.WRONG_OUTPUT, "answers from memory"),
    ],
    ids=lambda value: value.name() if isinstance(value, Technique) else "",
)
def test_a_bad_candidate_ends_with_its_own_outcome(
    laboratory: Laboratory, technique: Technique, outcome: Outcome, reason: str
) -> None:
    trial = attempt(laboratory, technique)

    assert trial.outcome is outcome, trial.reason
    assert reason in trial.reason


def test_a_candidate_that_is_wrong_on_one_class_is_never_held(laboratory: Laboratory) -> None:
    trial = attempt(laboratory, planted.WrongOnOneClass(share=0.05))

    assert trial.quality is None or trial.quality.verdict is not QualityVerdict.HELD


@pytest.mark.parametrize("technique", [planted.HangAtExit(), planted.FloodsLog()], ids=lambda t: t.name())
def test_a_candidate_that_is_only_rude_is_measured_all_the_same(laboratory: Laboratory, technique: Technique) -> None:
    trial = attempt(laboratory, technique)

    assert trial.outcome is Outcome.OK, trial.reason


def test_slower_equal_and_faster_are_told_apart(laboratory: Laboratory) -> None:
    slower, equal, faster = (attempt(laboratory, kind()) for kind in (planted.Slower, planted.Equal, planted.Faster))

    assert slower.outcome is Outcome.NOT_FASTER
    assert slower.speedup is not None and slower.speedup.high < 0.9
    assert equal.speedup is not None and equal.speedup.low < 1.03
    assert faster.speedup is not None and faster.speedup.low > 1.02


def test_a_whole_search_over_bad_candidates_keeps_the_original_and_says_why(tmp_path: Path) -> None:
    names = ["crash-at-first-call", "nan-answer", "constant-answer", "slower", "batch-dependent-answer"]

    result = vv.optimize(
        workload(), Budget(drop=0.01), time="3m", out=tmp_path / "fast", only=names, extra=EXTRA, limits=LIMITS
    )

    assert result.status is Status.NOTHING_FASTER
    assert result.plan == Plan()
    assert {trial.outcome for trial in result.candidates} >= {Outcome.CRASHED, Outcome.NONFINITE, Outcome.NOT_FASTER}
    assert all(trial.reason and trial.reproduce for trial in result.candidates)
    x = workload().inputs[0]
    torch.testing.assert_close(vv.load(tmp_path / "fast")(x), PACED.model()(x))
