"""Where the time goes before and after, asked of fresh workers after the verdict; what cannot be had is told."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import vivace as vv
from vivace.api.profiling import Findings, Reader, fused_in, most_frequent, profile_in, profiles_of
from vivace.core.compute import OperatorTime, Profile
from vivace.core.errors import ArtifactError
from vivace.core.layer import FusedList
from vivace.core.measurement import ArmTimes, Comparison, Interval, SpeedVerdict
from vivace.core.plan import Plan
from vivace.core.quality import Quality, QualityVerdict
from vivace.core.registry import techniques
from vivace.core.result import Result, Status
from vivace.core.workload import Mix
from vivace.data import samples
from vivace.measure.clock import FakeClock, SystemClock
from vivace.measure.process import Worker
from vivace.report.results import ResultDocument
from vivace.runtimes import store
from vivace.search.prepare import Prepared, prepare
from vivace.search.schedule import Schedule

TIMES = ArmTimes(1e-3, None, None, 100, 0.1, 0.1, True, 0)
SAME = Comparison(Interval(1, 1, 1), SpeedVerdict.SAME, TIMES, TIMES, 20, 3, 0.01, ((1.0,),))
HELD = Quality(QualityVerdict.HELD, "not judged here", 1, 0.0)


def workload() -> vv.Workload:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 4)).eval()
    x = torch.randn(1200, 32)
    with torch.no_grad():
        y = model(x).argmax(1)
    pairs = list(zip(x.split(40), y.split(40), strict=True))
    return vv.Workload(model, inputs=(x[:16],), data=pairs, metric=vv.metrics.accuracy, name="wide")


def result(plan: Plan) -> Result:
    return Result("wide", Status.FASTER, plan, SAME, HELD, None, (), 0.01, {})


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare(workload(), tmp_path_factory.mktemp("run"))


def built(prepared: Prepared, folder: Path, *names: str) -> tuple[Plan, Path]:
    plan = Plan.of([techniques()[name]() for name in names])
    model = store.read_model(prepared.program)
    for technique in plan:
        model = technique.apply(model, prepared.work)
    store.save(model, folder / "program")
    return plan, folder / "program"


def test_one_worker_tells_what_was_fused_and_where_the_time_goes_and_another_profiles_the_original(
    prepared: Prepared, tmp_path: Path
) -> None:
    plan, program = built(prepared, tmp_path, "onnx-runtime")
    reader = Reader(result(plan), program, prepared, Schedule(300.0, SystemClock().now(), 3))

    found = reader.winner(listing_seconds=5.0)
    profiles = profiles_of(found, *reader.original())

    assert profiles.note == ""
    assert profiles.original is not None and profiles.winner is not None
    assert (profiles.original.form, profiles.winner.form) == ("torch", "onnx")
    for profile in (profiles.original, profiles.winner):
        heaviest = max(profile.operators, key=lambda one: one.seconds)
        assert heaviest.layers[0] == "2"
        assert heaviest.flops == 2 * 16 * 1024 * 1024
    flops = [sum(one.flops or 0.0 for one in profile.operators) for profile in (profiles.original, profiles.winner)]
    assert flops == [prepared.work.cost.flops] * 2


def test_without_time_nothing_is_profiled_or_made_up(prepared: Prepared, tmp_path: Path) -> None:
    plan, program = built(prepared, tmp_path, "inference-mode")
    late = Schedule(300.0, 0.0, 3, FakeClock([299.0]))
    reader = Reader(result(plan), program, prepared, late)

    found = reader.winner(listing_seconds=5.0)
    profiles = profiles_of(found, *reader.original())

    assert found.fused == FusedList(note="not listed: no time was left")
    assert (profiles.original, profiles.winner) == (None, None)
    assert profiles.note == (
        "the original is not profiled: no time was left; the winner is not profiled: no time was left"
    )


def test_with_little_time_ceilings_are_measured_rather_than_the_winner_profiled(
    prepared: Prepared, tmp_path: Path
) -> None:
    plan, program = built(prepared, tmp_path, "inference-mode")
    schedule = Schedule(60.0, SystemClock().now(), 3, opening_seconds=20.0)
    schedule.seconds = schedule.publish_seconds(None) + schedule.measuring_seconds() + 2.9

    found = Reader(result(plan), program, prepared, schedule).winner(listing_seconds=1.0)

    assert found.fused.note == ""
    assert (found.profile, found.reason) == (None, "no time was left")


def test_the_original_that_was_kept_is_profiled_once(prepared: Prepared) -> None:
    reader = Reader(result(Plan()), prepared.program, prepared, Schedule(300.0, SystemClock().now(), 3))

    assert reader.winner(listing_seconds=5.0).reason == "it is the original"


def test_a_program_that_cannot_be_opened_is_told_and_raises_nothing(prepared: Prepared, tmp_path: Path) -> None:
    plan, program = built(prepared, tmp_path, "inference-mode")
    (program / "model.pt2").unlink()

    found = Reader(result(plan), program, prepared, Schedule(300.0, SystemClock().now(), 3)).winner(5.0)

    assert found.fused.groups == () and found.fused.note.startswith("not listed: ")
    assert found.profile is None and "lacks model.pt2" in found.reason


def test_a_worker_whose_program_is_not_there_answers_all_the_same(prepared: Prepared, tmp_path: Path) -> None:
    with Worker(tmp_path / "log") as worker:
        found = fused_in(worker, tmp_path / "none", tmp_path / "none", lambda: 60.0)
        assert found.groups == () and found.note.startswith("not listed: there is no readable program")

        with pytest.raises(ArtifactError, match="no readable program"):
            profile_in(worker, tmp_path / "none", prepared.program, prepared.confirm_calls, lambda: 60.0)


def test_of_calls_in_several_shapes_the_most_frequent_is_profiled(prepared: Prepared, tmp_path: Path) -> None:
    stored = samples.read(prepared.confirm_calls)
    calls = [[torch.randn(4, 32)], [torch.randn(64, 32)], [torch.randn(64, 32)]]
    mixed = samples.write(tmp_path / "mixed", calls, stored.call, 1, Mix((0, 1, 1), (0.25, 0.75)))

    with Worker(tmp_path / "log") as worker:
        found = profile_in(worker, prepared.program, prepared.program, mixed, lambda: 60.0)

    assert most_frequent(samples.read(mixed)) == [1, 2]
    assert sum(one.flops or 0.0 for one in found.operators) == 4 * prepared.work.cost.flops
    assert "of the most frequent shape" in found.note


def test_a_winner_whose_original_is_not_profiled_has_no_flops() -> None:
    winner = Profile("onnx", 1.0, (OperatorTime("Gemm", ("head",), 0.5),))

    found = profiles_of(Findings(FusedList(), winner), None, "it crashed")

    assert found.winner == winner
    assert found.note == "the original is not profiled: it crashed"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_an_optimization_tells_where_the_time_goes_before_and_after(tmp_path: Path) -> None:
    pytest.importorskip("nncf")

    found = vv.optimize(
        workload(),
        vv.Budget(drop=0.3),
        time="3m",  # the least for which time to profile is kept
        out=tmp_path / "fast",
        plan=[{"technique": "nncf-static-int8", "settings": {"keep": 1}}, "openvino"],
    )

    assert found.wall_seconds < 182
    document = ResultDocument.model_validate_json((tmp_path / "fast" / "results.json").read_text())
    assert document.profiles is not None and document.profiles == found.profiles
    assert document.profiles.original is not None, document.profiles.note
    assert document.profiles.original.form == "torch"
    assert {"0", "2", "4"} <= {layer for one in document.profiles.original.operators for layer in one.layers}
    assert document.profiles.winner is not None, document.profiles.note
    assert document.profiles.winner.form == "openvino"
    assert tuple(document.sensitivity) == found.sensitivity
    assert [one.kept for one in found.sensitivity] == [True, False, False]
    assert sum(one.seconds_share for one in found.sensitivity) == pytest.approx(1.0)
