"""`vivace predict`: tables for people, documents for programs, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vivace.cli.app import main

FILE = """
import torch

import vivace as vv
from vivace.testing import tiny_training

job = tiny_training.job()
gpt = vv.Transformer(layers=24, width=2048, heads=16, sequence=1024)
work = vv.Workload(tiny_training.perceptron(), inputs=(torch.zeros(4, 12),), name="tiny")
"""
GPT = "transformer:layers=24,width=2048,heads=16,sequence=1024"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "elsewhere.py").write_text(FILE)
    return tmp_path / "elsewhere.py"


def test_the_catalogue_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--list"]) == 0
    told = capsys.readouterr().out

    assert "h100-sxm" in told
    assert "coral-edge-tpu" in told


def test_the_catalogue_shows_whole_numbers_at_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["predict", "--list"]) == 0

    assert "…" not in capsys.readouterr().out


def test_the_catalogue_as_a_document_has_every_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--list", "--json"]) == 0
    found = {one["key"]: one for one in json.loads(capsys.readouterr().out)["devices"]}

    number = found["tpu-v5e"]["numbers"]["dense_bf16_tflops"]
    assert number["value"] == 197
    assert number["source"]["url"].startswith("https://docs.cloud.google.com/tpu")


@pytest.mark.parametrize("name", ["work", "job", "gpt"])
def test_every_kind_of_target_prints_under_forty_lines(
    name: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = ["--batch", "1024"] if name != "work" else []
    asked = ["--on", "h100-sxm,a100-sxm-40,t4,tpu-v5e,coral-edge-tpu", "--count", "1,8,64,512", *batch]
    assert main(["predict", f"{file}:{name}", *asked]) == 0
    told = capsys.readouterr().out

    assert "PREDICTED" in told
    assert "refused" in told
    assert len(told.splitlines()) < 40


def test_every_line_says_predicted_with_its_interval_and_few_tell_their_energy(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", f"{file}:work", "--on", "h100-sxm,t4", "--count", "1,8"]) == 0
    rows = [row.split() for row in capsys.readouterr().out.splitlines() if row.startswith(("h100-sxm ", "t4 "))]

    assert [row[2] for row in rows[:4]] == ["PREDICTED"] * 4
    assert all(row[4].startswith("[") and row[5].endswith("]") for row in rows[:4])
    assert [row[:2] for row in rows[4:]] == [[name, n] for name in ("h100-sxm", "t4") for n in ("1", "8")]
    assert all(float(row[2]) > 0 for row in rows[4:])


def test_what_could_not_run_on_any_device_is_an_error_beside_the_document(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large = "transformer:layers=96,width=12288,heads=96,sequence=2048"
    assert main(["predict", large, "--on", "h100-sxm", "--count", "1,7", "--batch", "64", "--json"]) == 2
    told = capsys.readouterr()
    assert [line["cannot_run"] for line in json.loads(told.out)["lines"]] == [True, True]
    assert told.err.startswith("error: nothing that was asked for can run: 1 x h100-sxm: does not fit: it holds ")
    assert "7 x h100-sxm: no layout divides 7 devices" in told.err

    assert main(["predict", f"{file}:job", "--on", "h100-sxm", "--count", "1,7", "--batch", "64"]) == 0
    assert main(["predict", f"{file}:job", "--on", "h100-sxm", "--count", "7", "--batch", "64"]) == 2
    assert "counts near it: 2, 4, 8; or give a batch of 63 or 70" in capsys.readouterr().err


def test_what_fits_only_when_shared_out_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    large = "transformer:layers=40,width=5120,heads=40,sequence=2048"
    assert main(["predict", large, "--on", "h100-sxm", "--count", "64,1024", "--batch", "1024"]) == 0
    told = " ".join(capsys.readouterr().out.split())

    assert "fits: 1024 x h100-sxm: with optimizer shared out among the devices" in told


def test_the_target_is_told_by_the_batch(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--on", "h100-sxm", "--count", "8", "--batch", "512", "--runs", "64=1e6,256=1.3e6,1024=2.5e6"]
    assert main(["predict", GPT, *asked]) == 0
    told = " ".join(capsys.readouterr().out.split())

    assert "hours to the target on 8 x h100-sxm (PREDICTED): batch 64: " in told
    assert all(f"; batch {size}: " in told for size in (256, 512, 1024))
    assert "; soonest with " in told


def test_the_document_has_the_fields_of_the_objects(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", f"{file}:work", "--on", "h100-sxm,tpu-v5e", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)

    assert found["work"]["purpose"] == "inference"
    assert [line["label"] for line in found["lines"]] == ["PREDICTED", "PREDICTED"]
    assert found["lines"][0]["seconds"]["low"] < found["lines"][0]["seconds"]["value"]
    assert found["lines"][1]["seconds"] is None
    assert found["lines"][1]["refusal"]


def test_layouts_limits_prices_and_targets_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--on", "a100-sxm-40", "--count", "8", "--batch", "32", "--layouts", "--price", "a100-sxm-40=1.5"]
    runs = ["--runs", "16=1e6,32=1.1e6,64=1.4e6"]
    assert main(["predict", GPT, *asked, *runs]) == 0
    told = capsys.readouterr().out

    assert "  1. data" in told
    assert "times the first" in told
    assert "no measurement of micro batch 16" in told
    assert "price of a step" in told
    assert "hours to the target" in told


def test_layouts_are_told_of_every_device_and_count_with_why_the_others_lose(
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = ["predict", GPT, "--on", "h100-sxm,a100-sxm-40,t4", "--count", "8,16", "--batch", "256", "--layouts"]
    assert main(asked) == 0
    told = capsys.readouterr().out
    blocks = " ".join(told.split()).split("layouts of 256 samples on ")[1:]

    assert [one.partition(",")[0].partition(":")[0] for one in blocks] == [
        f"{count} x {device}" for device in ("h100-sxm", "a100-sxm-40", "t4") for count in (8, 16)
    ]
    assert all(f" {place}. data" in one for one in blocks[:4] for place in (1, 2, 3))
    assert all("times the first" in one and "out: " in one for one in blocks[:4])
    assert all("none; no measurement of more than one t4" in one for one in blocks[4:])

    assert main([*asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["layouts"]
    assert [(one["device"], one["count"], len(one["best"]), bool(one["refusal"])) for one in found] == [
        *((device, count, 3, False) for device in ("h100-sxm", "a100-sxm-40") for count in (8, 16)),
        *(("t4", count, 0, True) for count in (8, 16)),
    ]


def test_what_a_device_computes_for_is_told_and_in_the_document(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["predict", GPT, "--on", "h100-sxm", "--count", "10000", "--batch", "20000"]
    assert main(asked) == 0
    told = capsys.readouterr().out
    assert main([*asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["scale"][0]

    low, value, high = (found["computing_seconds"][end] for end in ("low", "value", "high"))
    assert low < value < high
    assert f"a device computes for {1e3 * value:.2f} [{1e3 * low:.2f}, " in told
    assert found["basis"].startswith("measured on h100-sxm")


def test_ten_thousand_devices_are_told_what_binds_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", GPT, "--on", "h100-sxm", "--count", "10000", "--batch", "20000"]) == 0
    told = capsys.readouterr().out

    assert "what would bind 10000 x h100-sxm" in told
    assert "Daly" in told
    assert "no measurement beyond 512 x h100-sxm" in told
    assert "--input-rate" in told

    assert main(["predict", GPT, "--on", "h100-sxm,b200", "--count", "2000,10000", "--batch", "20000"]) == 0
    both = capsys.readouterr().out
    assert "what would bind 10000 x h100-sxm" in both and "what would bind 10000 x b200" in both
    assert "what would bind 2 more; --json has it" in both

    asked = ["predict", GPT, "--on", "h100-sxm", "--count", "10000", "--batch", "20000", "--input-rate", "0.001"]
    assert main(asked) == 0
    assert "GB/s are needed, 0.001 given" in " ".join(capsys.readouterr().out.split())
    assert main([*asked[:-1], "0"]) == 2
    assert "input_bytes_per_second (--input-rate) is 0" in capsys.readouterr().err


def test_a_measured_count_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--on", "h100-sxm", "--count", "64", "--batch", "512", "--measured", "h100-sxm=8:200"]
    assert main(["predict", GPT, *asked]) == 0
    assert "your 200 samples/s on 8" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "TARGET is missing"),
        ([GPT], "--on is missing"),
        ([GPT, "--on", "h10"], "unknown device 'h10'; did you mean"),
        ([GPT, "--on", "nosuch-gpu"], "unknown device 'nosuch-gpu'; devices of gpu are v100-sxm2"),
        ([GPT, "--on", "h100-sxm", "--count", "many"], "--count received 'many'"),
        ([GPT, "--on", "h100-sxm"], "batch is missing"),
        ([GPT, "--on", "h100-sxm", "--batch", "8", "--price", "h100-sxm"], "allowed are NAME=VALUE"),
        ([GPT, "--on", "h100-sxm", "--batch", "8", "--measured", "h100-sxm=8"], "--measured received ''"),
        (["transformer:layers=x", "--on", "h100-sxm"], "allowed are sizes such as layers=24"),
        (["transformer:layers=2", "--on", "h100-sxm"], "the first four needed"),
        (["nothing.py:x", "--on", "h100-sxm"], "there is no file nothing.py"),
    ],
)
def test_bad_input_is_one_message(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_job_in_code_has_no_layouts(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", f"{file}:job", "--on", "h100-sxm", "--layouts"]) == 2
    assert "allowed is a vivace.Transformer" in capsys.readouterr().err


def test_a_transformer_is_no_target_of_other_verbs(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", f"{file}:gpt"]) == 2
    assert "which `vivace predict` takes" in capsys.readouterr().err
