"""The back-tests of the predictor: what they read; that what is committed meets its targets and can be made again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import predicting
from predictions import card, processes, processes_measure, published
from vivace.core.prediction.layout import Layout
from vivace.devices.catalog import device
from vivace.devices.prediction import sharded_scaling, step_time
from vivace.devices.prediction.measured import laws
from vivace.devices.prediction.memory import transformer_memory

COMMITTED = json.loads((Path(predicting.RESULTS) / "predicting.json").read_text(encoding="utf-8"))


def test_all_published_rows_are_read() -> None:
    assert len(published.vtrain().runs) == 1440
    assert len(published.llm_foundry()) == 216
    assert len(published.pairs()) == 59
    assert len(published.maxtext()) == 46


def test_layouts_of_vtrain_have_as_many_devices_as_its_table_says() -> None:
    assert {run.layout.devices for run in published.vtrain().runs} == {2, 4, 8}


def test_weights_of_llm_foundrys_models_come_out_as_its_table_counts_them() -> None:
    row = next(row for row in published.llm_foundry() if row.model == "7b" and row.trained.model.sequence == 2048)
    assert row.trained.model.parameters == pytest.approx(6658859008, rel=0.01)


def test_trainings_that_ran_are_said_to_fit() -> None:
    stages = {"NO_SHARD": 0, "SHARD_GRAD_OP": 2, "FULL_SHARD": 3}
    for row in published.llm_foundry():
        one = row.trained
        layout = Layout(
            one.devices, sharding=stages[row.sharding], micro_batch=one.micro_batch, recompute=one.recompute
        )
        memory = transformer_memory(
            one.model, layout, row.micro_batches, device(published.CARDS[row.card]).memory_bytes
        )
        assert memory.fits, row


def test_the_half_that_is_reported_on_is_about_a_half() -> None:
    halves = predicting.halves()
    assert 0.45 < len(halves["reported half"]) / len(halves["all rows"]) < 0.55


def test_one_split_is_as_good_as_was_committed() -> None:
    rows = published.vtrain().part(predicting.halves()["reported half"])
    found = predicting.split(rows, 50)
    assert found["median"] == pytest.approx(COMMITTED["vtrain"]["reported half"]["median"]["values"][50], abs=0.003)
    assert found["regret"] == pytest.approx(COMMITTED["vtrain"]["reported half"]["regret"]["values"][50], abs=0.01)


@pytest.mark.parametrize("half", ["reported half", "all rows"])
@pytest.mark.parametrize(("figure", "target"), [("median", 0.07), ("p90", 0.20), ("regret", 0.05)])
def test_the_steps_of_vtrain_meet_the_targets_in_the_median_split(half: str, figure: str, target: float) -> None:
    assert COMMITTED["vtrain"][half][figure]["median"] <= target


@pytest.mark.parametrize("half", ["reported half", "all rows"])
@pytest.mark.parametrize(("figure", "target"), [("median", 0.07), ("p90", 0.20), ("regret", 0.05)])
def test_the_steps_of_vtrain_meet_the_targets_in_nearly_all_splits(half: str, figure: str, target: float) -> None:
    values = COMMITTED["vtrain"][half][figure]["values"]
    assert sum(value <= target for value in values) >= 0.95 * len(values)


def test_scaling_meets_its_target_and_beats_keeping_the_efficiency() -> None:
    found = predicting.scaling()
    assert found["mean"] == pytest.approx(COMMITTED["scaling"]["mean"], abs=0.002)
    assert found["mean"] <= 0.06
    assert found["mean"] < min(found["keep_last_mean"], 0.084)


def test_regret_is_nothing_for_true_times_and_more_for_the_opposite() -> None:
    rows = published.vtrain()
    assert predicting.regret(rows, rows.seconds) == 0.0
    assert predicting.regret(rows, -rows.seconds) > 0.5


def test_the_package_carries_the_laws_that_the_measurements_imply() -> None:
    rows, carried = published.vtrain(), laws()
    fit = step_time.fit_steps(rows.runs, rows.seconds, published.rates())
    mine = step_time.step_seconds(fit, rows.runs, published.rates()).total
    theirs = step_time.step_seconds(carried.step_fit, rows.runs, published.rates()).total
    assert np.abs(mine / theirs - 1).max() < 0.01
    scaling = sharded_scaling.fit_scaling([pair for _, _, pair in published.pairs()])
    assert carried.scaling.parameters == pytest.approx(scaling, abs=0.05)


def test_steps_larger_than_any_that_a_law_saw_are_held_by_its_interval_as_was_committed() -> None:
    committed, carried = COMMITTED["card"]["larger"], laws().operators["gpu"]

    found = card.larger(carried.factor95)

    assert (found["steps"], found["held"]) == (committed["steps"], committed["held"])
    assert found["held"] >= 0.95 * found["steps"]
    assert found["exponent"] == pytest.approx(carried.beyond.exponent, abs=1e-3)
    assert 1 < carried.beyond.reach <= found["farthest"]
    assert {name: most for name, (_, most) in carried.bounds.items()} == pytest.approx(
        card.bounds_of(card.measurements()), abs=0.1
    )


def test_the_shares_of_tpus_are_those_that_their_tables_print() -> None:
    row = next(row for row in published.maxtext() if row.pod.device == "tpu-v5p" and row.pod.parameters == 64e9)
    assert row.share == pytest.approx(0.7031, abs=0.001)
    assert row.chips == 64


@pytest.mark.parametrize(("unseen", "most"), [("models", 0.06), ("generations", 0.12)])
def test_shares_of_tpus_that_no_fit_saw_are_predicted_as_was_committed(unseen: str, most: float) -> None:
    found = predicting.pods(unseen == "generations")
    assert found["mean"] == pytest.approx(COMMITTED["pods"][f"unseen {unseen}"]["mean"], abs=1e-6)
    assert found["mean"] <= most


@pytest.mark.parametrize(
    ("name", "file"), [("processes", processes_measure.FILE), ("processes_older", processes_measure.OLDER)]
)
def test_steps_of_two_processes_are_predicted_as_was_committed(name: str, file: Path) -> None:
    found, committed = processes.tested(file), COMMITTED[name]
    errors = {(one["case"], one["spread"]): one["error"] for one in found["entries"]}
    assert errors == pytest.approx(
        {(one["case"], one["spread"]): one["error"] for one in committed["entries"]}, abs=1e-3
    )
    assert (found["within"], found["predicted"]) == (committed["within"], 12)
    assert {spread for _, spread in errors} == {"data", "shard", "tensor", "pipeline"}


def test_steps_of_two_processes_are_predicted_by_the_law_of_another_machine_as_was_committed() -> None:
    found, committed = processes.elsewhere(), COMMITTED["processes_elsewhere"]
    assert (found["within"], found["steps"]) == (committed["within"], committed["steps"]) == (64, 64)
    assert found["factor95"] == pytest.approx(laws().processes.factor95, abs=1e-3)
    law, wires = processes.carried()
    assert laws().processes.parameters == pytest.approx(law.parameters, abs=1e-3)
    assert laws().processes_latency_seconds == pytest.approx(processes.latency_of(wires), rel=1e-4)
    assert {name: pytest.approx(most) for name, most in processes.bounds().items()} == dict(laws().processes.bounds)


def test_steps_of_two_processes_larger_than_any_that_a_law_saw_are_held_as_was_committed() -> None:
    committed, carried = COMMITTED["processes_larger"], laws().processes

    found = processes.larger()

    assert (found["steps"], found["factor95"]) == (committed["steps"], pytest.approx(committed["factor95"], abs=1e-3))
    widest = max(found["factor95"], found["far_factor95"])
    assert carried.factor95 * carried.beyond.factor == pytest.approx(widest, abs=1e-3)
    assert widest < 1.1 * found["factor95"]  # errors grow little with the distance
    assert 1 < carried.beyond.reach <= found["farthest"]
    assert all(cut["size"] in processes.SUMMED for cut in found["cuts"])


def test_what_two_processes_took_for_a_network_does_not_change_its_prediction(tmp_path: Path) -> None:
    document = processes.measured()
    targets = [name for name, facts in document["facts"].items() if facts["is_target"]]
    for session in document["sessions"]:
        for seen in session["rounds"]:
            seen.update({name: {**seen[name], "together": 10 * seen[name]["together"]} for name in targets})
    (tmp_path / "other.json").write_text(json.dumps(document))

    found, other = processes.tested(), processes.tested(tmp_path / "other.json")

    assert [one["predicted"] for one in found["entries"]] == [one["predicted"] for one in other["entries"]]
    assert other["within"] == 0


def test_the_table_for_people_names_every_test() -> None:
    told = "\n".join(predicting.lines(COMMITTED))
    assert all(
        word in told
        for word in ("vTrain, reported half", "regret", "keeping the efficiency", "h100-sxm", "TPUs", "two processes")
    )


@pytest.mark.slow
def test_a_session_of_two_processes_is_measured_and_predicted(tmp_path: Path) -> None:
    told = processes_measure.add_session(0.0, tmp_path / "seen.json")

    found = processes.tested(tmp_path / "seen.json")
    assert "1 rounds" in told and (found["sessions"], found["rounds"], found["predicted"]) == (1, 1, 12)


def test_a_target_that_is_missed_fails_the_benchmark() -> None:
    assert predicting.missed(COMMITTED) == []

    worse = json.loads(json.dumps(COMMITTED))
    worse["vtrain"]["all rows"]["p90"]["p90"] = 0.21
    worse["scaling"]["mean"] = 0.07
    worse["processes"]["within"] -= 1
    told = predicting.missed(worse)
    assert [one.partition(":")[0] for one in told] == ["vTrain, all rows", "llm-foundry", "two processes"]
