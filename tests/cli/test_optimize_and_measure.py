"""What the verbs ask of the api, and what they print."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from false_api import FalseApi, made_comparison, made_forecast, made_result

from vivace.cli.app import main
from vivace.core.quality import Budget
from vivace.core.result import Result


def test_every_option_reaches_the_api(api: FalseApi) -> None:
    main(
        [
            "optimize",
            "w.py:job",
            "--out",
            "mine",
            "--objective",
            "memory",
            "--max-drop",
            "0.02",
            "--relative",
            "--time",
            "90s",
            "--preset",
            "thorough",
            "--calls",
            "1000",
            "--keep",
            "head,layer4.*",
            "--device",
            "cuda",
            "--only",
            "threads,inductor",
            "--only",
            "openvino",
            "--without",
            "bfloat16",
            "--gate",
            "point",
            "--resume",
            "--native",
            "--fixed-shapes",
            "--seed",
            "7",
            "--json",
            "--quiet",
        ]
    )
    ((name, (work,), given),) = api.calls
    del given["progress"]
    assert (name, work) == ("optimize", "w.py:job")
    assert given == {
        "out": Path("mine"),
        "objective": "memory",
        "budget": Budget(0.02, relative=True),
        "time": "90s",
        "preset": "thorough",
        "calls": 1000,
        "keep": ("head", "layer4.*"),
        "device": "cuda",
        "only": ("threads", "inductor", "openvino"),
        "without": ("bfloat16",),
        "gate": "point",
        "resume": True,
        "native": True,
        "fixed_shapes": True,
        "seed": 7,
        "plan": None,
    }


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("threads, openvino", ["threads", "openvino"]),
        ('["threads"]', ["threads"]),
        ('[{"technique": "threads", "settings": {"count": 2}}]', [{"technique": "threads", "settings": {"count": 2}}]),
    ],
)
def test_a_plan_is_given_by_names_or_as_results_hold_it(api: FalseApi, given: str, asked: object) -> None:
    main(["optimize", "w.py:job", "--plan", given, "--quiet"])

    assert api.calls[0][2]["plan"] == asked


def test_a_plan_that_is_half_json_says_what_is_allowed(api: FalseApi, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["optimize", "w.py:job", "--plan", '["threads"', "--quiet"]) == 2

    assert "give names, such as threads,openvino, or what" in capsys.readouterr().err.replace("\n", " ")
    assert api.calls == []


def test_the_defaults_are_the_documented_ones(api: FalseApi) -> None:
    main(["optimize", "w.py:job", "--quiet"])
    ((_, _, given),) = api.calls
    del given["progress"]
    assert given == {
        "out": Path("fast"),
        "objective": "latency",
        "budget": Budget(0.01),
        "time": None,
        "preset": "default",
        "calls": None,
        "keep": (),
        "device": "auto",
        "only": (),
        "without": (),
        "gate": "strict",
        "resume": False,
        "native": False,
        "fixed_shapes": False,
        "seed": 0,
        "plan": None,
    }


def test_the_block_goes_to_standard_output_and_progress_to_standard_error(
    api: FalseApi, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer() -> Result:
        api.calls[0][2]["progress"].stage("search", "candidate 1 of 2")
        return made_result()

    api.answer = answer
    assert main(["optimize", "w.py:job"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("2.00x faster [1.90, 2.10] than the original, MEASURED; quality HELD")
    assert captured.err == "search: candidate 1 of 2\n"


def test_with_json_nothing_else_reaches_standard_output(api: FalseApi, capfd: pytest.CaptureFixture[str]) -> None:
    def answer() -> Result:
        sys.stdout.write("the user's file prints")
        os.write(1, b"a native library prints\n")
        return made_result()

    api.answer = answer
    assert main(["optimize", "w.py:job", "--json", "--quiet"]) == 0
    captured = capfd.readouterr()
    assert json.loads(captured.out)["speedup"] == {"value": 2.0, "low": 1.9, "high": 2.1}
    assert "the user's file prints" in captured.err
    assert "a native library prints" in captured.err


def test_a_dry_run_exits_with_0_and_predicts(api: FalseApi, capsys: pytest.CaptureFixture[str]) -> None:
    api.answer = made_forecast
    assert main(["optimize", "w.py:job", "--dry-run", "--only", "threads", "--keep", "head", "--plan", "threads"]) == 0
    printed = capsys.readouterr().out
    assert "PREDICTED" in printed
    assert "where a plan loses too much quality, also with that won back:" in printed
    ((name, (work,), given),) = api.calls
    assert (name, work) == ("preview", "w.py:job")
    assert given == {
        "budget": Budget(0.01),
        "objective": "latency",
        "time": None,
        "preset": "default",
        "calls": None,
        "only": ("threads",),
        "without": (),
        "native": False,
        "fixed_shapes": False,
        "device": "auto",
        "gate": "strict",
        "plan": ["threads"],
        "keep": ("head",),
        "seed": 0,
    }


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--plan", "{bad"], "--plan received JSON that cannot be read"),
        (["--price", "a=1"], "--price was given without --cluster"),
        (["--price", "a=much", "--cluster", "auto"], "--price has 'a=much'"),
        (["--price", "a=-1", "--cluster", "auto"], "--price has 'a=-1'; allowed is NODE=PRICE, such as c7i=0.36, 0 or"),
        (["--cluster", "auto", "--resume"], "--resume was given with --cluster"),
        (["--max-drop", "-1"], "negative"),
    ],
)
def test_a_dry_run_refuses_what_a_run_refuses(
    api: FalseApi, capsys: pytest.CaptureFixture[str], dry: list[str], options: list[str], told: str
) -> None:
    api.answer = made_forecast

    assert main(["optimize", "w.py:job", *options, *dry]) == 2

    assert told in capsys.readouterr().err.replace("\n", " ")
    assert api.calls == []


def test_a_dry_run_prints_one_document(api: FalseApi, capsys: pytest.CaptureFixture[str]) -> None:
    api.answer = made_forecast
    assert main(["optimize", "w.py:job", "--dry-run", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["plans"][0]["plan_name"] == "original"
    assert document["if_refused"][0]["predicted_seconds"] == 20.0


def test_standard_output_is_given_back_after_an_error(api: FalseApi, capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout

    def answer() -> Any:
        raise KeyboardInterrupt

    api.answer = answer
    assert main(["optimize", "w.py:job", "--json", "--quiet"]) == 130
    assert sys.stdout is before
    assert json.loads(capsys.readouterr().out)["error"]["exit_code"] == 130


def test_measure_prints_the_verdict_on_b(api: FalseApi, capsys: pytest.CaptureFixture[str]) -> None:
    api.answer = made_comparison
    assert main(["measure", "w.py:job", "fast", "--quiet"]) == 0
    assert capsys.readouterr().out.startswith("B is 2.00x faster [1.90, 2.10] than A, MEASURED\n")
    assert api.calls[0][1] == ("w.py:job", "fast")
    assert (api.calls[0][2]["time"], api.calls[0][2]["trust"]) == ("1m", False)


def test_measure_prints_one_document(api: FalseApi, capsys: pytest.CaptureFixture[str]) -> None:
    api.answer = made_comparison
    assert main(["measure", "w.py:job", "fast", "--json", "--quiet"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["a"], document["b"], document["speedup"]["value"]) == ("w.py:job", "fast", 2.0)
