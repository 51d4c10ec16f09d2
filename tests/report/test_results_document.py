"""The document of results.json: its keys, its values, and that it reads back."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydantic import ValidationError

from vivace.api.readme import readme_of
from vivace.artifact.manifest import Manifest
from vivace.core.compute import OperatorTime, Profile, Profiles
from vivace.core.forecast import Forecast
from vivace.core.layer import LayerSensitivity
from vivace.core.measurement import Interval, SpeedVerdict
from vivace.core.quality import Fidelity
from vivace.core.result import Result
from vivace.core.workload import Objective
from vivace.report.html.around import key_numbers
from vivace.report.results import ResultDocument, comparison_document, preview_document, to_document


def loaded(result: Result) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(to_document(result).to_text())
    return document


def test_the_keys_are_the_field_names_of_the_python_objects(result: Result) -> None:
    document = loaded(result)
    assert document["schema_version"] == 1
    assert document["speedup"] == {"value": 2.31, "low": 2.27, "high": 2.35}
    assert document["quality"]["verdict"] == "HELD"
    assert document["artifact"] == "fast"
    assert document["status"] == "faster"
    assert document["plan"][1] == {"technique": "openvino", "settings": {"precision": "bf16"}}
    assert document["plan_name"] == "threads(count=1) + openvino(precision=bf16)"


def test_an_original_that_was_kept_is_no_faster_than_itself_whatever_its_captured_graph_was(nothing: Result) -> None:
    quick = dataclasses.replace(nothing.comparison, speedup=Interval(1.06, 1.03, 1.09), verdict=SpeedVerdict.UNDECIDED)

    document = loaded(dataclasses.replace(nothing, comparison=quick))

    assert (document["speedup"], document["verdict"]) == ({"value": 1.0, "low": 1.0, "high": 1.0}, "SAME")
    assert document["comparison"]["speedup"] == {"value": 1.06, "low": 1.03, "high": 1.09}


def test_the_page_tells_what_the_captured_graph_of_a_kept_original_was_measured_to_be(nothing: Result) -> None:
    quick = dataclasses.replace(nothing.comparison, speedup=Interval(1.06, 1.03, 1.09), verdict=SpeedVerdict.UNDECIDED)

    name, value, evidence = next(key_numbers(to_document(dataclasses.replace(nothing, comparison=quick))))

    assert name.startswith("the original's artifact over the original")
    assert "1.06" in str(value)
    assert evidence.startswith("UNDECIDED")


def test_the_readme_of_an_original_that_was_kept_claims_no_speed(nothing: Result) -> None:
    fields: dict[str, Any] = {"executes_native_code": False, "name": "net", "vivace_version": "0", "plan_name": "p"}
    machine = {"processor": "any", "cores_allowed": 2}

    text = readme_of(nothing, cast(Manifest, SimpleNamespace(**fields, machine=machine, accepts="x")))

    assert "no speed-up is claimed" in text
    assert "times the original's" not in text


def test_every_field_of_a_result_is_in_the_document(result: Result) -> None:
    assert {field.name for field in dataclasses.fields(result)} <= loaded(result).keys()


def test_every_field_of_a_trial_is_in_the_document(result: Result) -> None:
    trial = result.candidates[0]
    assert {field.name for field in dataclasses.fields(trial)} <= loaded(result)["candidates"][0].keys()


def test_every_candidate_is_there_with_its_outcome_and_reason(result: Result) -> None:
    found = [(trial["outcome"], trial["reason"]) for trial in loaded(result)["candidates"]]
    assert ("crashed", "SIGSEGV while converting") in found
    assert len(found) == 5


def test_the_ladder_holds_the_plain_rungs(result: Result) -> None:
    assert [trial["plan_name"] for trial in loaded(result)["ladder"]] == ["threads(count=1)"]


def test_machine_environment_and_versions_have_keys_of_their_own(result: Result) -> None:
    document = loaded(result)
    assert document["machine"]["cores_allowed"] == 2
    assert document["environment"] == {"load": 0.3}
    assert document["versions"] == {"torch": "2.13.0"}
    assert document["conditions"] == {"seed": 0}


def test_the_document_reads_back_equal(result: Result) -> None:
    document = to_document(result)
    assert ResultDocument.model_validate_json(document.to_text()) == document


def test_profiles_and_the_sensitivity_of_layers_read_back_equal(result: Result) -> None:
    operators = (OperatorTime("conv2d", ("stem",), 7e-4, 1e6, 2e5), OperatorTime("Reorder", (), 1e-5))
    profile = Profile("torch", 1e-3, operators, "a note")
    layers = (LayerSensitivity("stem", float("inf"), 0.75, True), LayerSensitivity("head", 21.5, 0.25, False))
    told = dataclasses.replace(result, profiles=Profiles(profile, None, "no time"), sensitivity=layers)

    document = ResultDocument.model_validate_json(to_document(told).to_text())

    assert document.profiles == told.profiles
    assert tuple(document.sensitivity) == layers


def test_an_infinite_ratio_is_legal_json_and_reads_back(result: Result) -> None:
    equal = Fidelity(float("inf"), 1.0, float("inf"), 1.0, 0.99, 64)
    document = to_document(dataclasses.replace(result, quality=dataclasses.replace(result.quality, fidelity=equal)))
    assert json.loads(document.to_text(), parse_constant=pytest.fail)["quality"]["fidelity"]["sqnr_db"] == "Infinity"
    assert ResultDocument.model_validate_json(document.to_text()) == document


def test_an_unknown_key_is_refused(result: Result) -> None:
    with pytest.raises(ValidationError, match="surprise"):
        ResultDocument.model_validate({**loaded(result), "surprise": 1})


def test_a_result_without_an_artifact_says_null(result: Result) -> None:
    assert loaded(dataclasses.replace(result, artifact=None))["artifact"] is None


def test_a_dry_run_is_labelled_as_predicted(forecast: Forecast) -> None:
    document = json.loads(preview_document(forecast).to_text())
    assert document["kind"] == "PREDICTED"
    assert (document["plans"][0]["predicted_speedup"], document["plans"][0]["predicted_seconds"]) == (1.5, 11.4)
    assert (document["seconds"], document["total_seconds"], document["disk_bytes"]) == (120.0, 83.4, 5_200_000)
    assert document["left_out"] == {"tf32": "needs a CUDA device"}


def test_a_dry_run_says_for_what_and_how_much_of_the_weights_is_read(forecast: Forecast) -> None:
    plans = (dataclasses.replace(forecast.plans[0], weight_bytes=4096),)

    document = json.loads(
        preview_document(dataclasses.replace(forecast, plans=plans, objective=Objective.SIZE)).to_text()
    )

    assert (document["objective"], document["plans"][0]["predicted_weight_bytes"]) == ("size", 4096)


def test_an_attribution_has_an_interval_or_a_reason_for_every_technique(result: Result) -> None:
    found = loaded(result)["attribution"]
    assert [step["plan_name"] for step in found["steps"]] == [
        "threads(count=1)",
        "threads(count=1) + openvino(precision=bf16)",
    ]
    crashed, left_out = found["left_out"]
    assert (crashed["speedup"], crashed["reason"]) == (None, "crashed: SIGSEGV in load")
    assert left_out["technique"] == {"technique": "openvino", "settings": {"precision": "bf16"}}
    assert left_out["worth"] == {"value": 1.78, "low": 1.72, "high": 1.84}


def test_an_original_that_was_kept_has_no_attribution_and_no_break_even(nothing: Result) -> None:
    assert (loaded(nothing)["attribution"], loaded(nothing)["break_even_calls"]) == (None, None)


def test_a_comparison_names_both_arms(result: Result) -> None:
    document = json.loads(comparison_document(result.comparison, "old", "new").to_text())
    assert (document["a"], document["b"], document["verdict"]) == ("old", "new", "FASTER")
    assert document["comparison"]["baseline"]["median_seconds"] == 0.00277
