"""`predict` on systolic arrays by both doors: chips side by side, a sweep with its front, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import vivace as vv
from vivace.cli.app import main
from vivace.core.errors import UsageError
from vivace.hardware.array.chip import chip_of
from vivace.hardware.array.cycles import Gemm
from vivace.hardware.array.memory import Board, time_of

FILE = """
import torch
from torch import nn
import vivace as vv

model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 196, 512), nn.GELU())
work = vv.Workload(model.eval(), inputs=(torch.rand(4, 1, 14, 14),), name="small")
"""


@pytest.fixture
def work() -> vv.Workload:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    return vv.Workload(model.eval(), inputs=(torch.rand(16, 784),), name="mlp")


@pytest.fixture
def target(tmp_path: Path) -> str:
    (tmp_path / "small_network.py").write_text(FILE)
    return f"{tmp_path / 'small_network.py'}:work"


def test_a_chip_is_predicted_layer_by_layer_by_the_same_model_as_a_synthesis(work):
    board = Board(hertz=1e9, bandwidth=4e9)

    found = vv.predict(work, on="asic:16x16:os", board=board)

    times = [time_of(Gemm(16, n, k), chip_of("asic:16x16:os"), board) for n, k in ((128, 784), (10, 128))]
    (chip,) = found.chips
    assert found.batch == 16
    assert [(row.layer, row.cycles) for row in chip.layers] == [("0", times[0].cycles), ("2", times[1].cycles)]
    assert chip.seconds == sum(time.cycles + 1 for time in times) / 1e9
    assert dict(found.beside) == {"relu": 1}


def test_less_bandwidth_makes_layers_wait_and_never_makes_them_quicker(work):
    found = vv.predict(work, on=["asic:64x64"], bandwidths=[1e9, 1e12])

    slow, fast = found.chips
    assert (slow.bandwidth, fast.bandwidth) == (1e9, 1e12)
    assert slow.memory_bound == ("0", "2")
    assert fast.memory_bound == ()
    assert slow.seconds > fast.seconds


def test_a_sweep_has_every_size_dataflow_sparsity_and_bandwidth_with_its_front(work):
    found = vv.predict(work, on="asic:16x16", sweep=True)

    assert len(found.points) == 5 * 3 * 2 * 3
    assert {point.chip for point in found.points} >= {"asic:8x8:os", "asic:128x128:is:2of4", "asic:16x16:ws"}
    assert len({point.bandwidth for point in found.points if point.front}) == 3
    assert [chip.bandwidth for chip in found.chips] == [4e9, 16e9, 64e9]


def test_without_a_name_a_sweep_tells_the_quickest_of_its_front(work):
    found = vv.predict(work, sweep=True)

    quickest = min((one for one in found.points if one.bandwidth == 16e9), key=lambda one: one.seconds)
    assert found.chips[0].chip == quickest.chip


def test_a_sweep_at_other_bandwidths_tells_its_front_at_the_first_of_them(work):
    found = vv.predict(work, sweep=True, bandwidths=[2e9, 8e9])

    assert {point.bandwidth for point in found.points} == {2e9, 8e9}
    assert found.board.bandwidth == 2e9
    assert [chip.bandwidth for chip in found.chips] == [2e9, 8e9] * 4


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"on": ["asic:16x16", "h100-sxm"]}, "are predicted by different models"),
        ({"on": "asic:16by16"}, r"allowed is asic:ROWSxCOLUMNS\[:os\|ws\|is\]\[:2of4\]"),
        ({"on": "asic:16x16", "count": 8, "precision": "bf16"}, "count, precision was given, which means nothing for"),
        ({"on": "h100-sxm", "bandwidths": [1e9]}, "bandwidths was given, which means nothing for devices"),
        (
            {"on": "asic:16x16", "bandwidths": [0.0]},
            r"the bandwidth of a chip is 0\.0 bytes a second .*; allowed is a number above 0",
        ),
        ({"sweep": True, "on": "t4"}, "a sweep of arrays and t4"),
    ],
)
def test_what_cannot_be_predicted_together_is_refused_with_what_to_do(work, asked, told):
    with pytest.raises(UsageError, match=told):
        vv.predict(work, **asked)


def test_a_transformer_in_words_has_no_call_to_count():
    gpt = vv.Transformer(layers=2, width=64, heads=4, sequence=32)

    with pytest.raises(UsageError, match="work is a Transformer; what an array takes is told of one call"):
        vv.predict(gpt, on="asic:16x16")


def test_the_command_tells_chips_side_by_side_in_words(target, capsys):
    code = main(["predict", target, "--on", "asic:16x16,asic:32x32:os:2of4", "--bandwidth", "1,16", "--clock", "250"])

    told = capsys.readouterr().out
    assert code == 0
    assert "2 products for a batch of 4 on systolic arrays at 250 MHz" in told
    assert told.count("asic:16x16:ws") == 2
    assert "1 of 2: 3" in told
    assert "not the array's, and not counted: relu x 1, gelu x 1" in " ".join(told.split())
    assert "no layer has 2:4 weights" in told


def test_the_command_sweeps_in_under_forty_lines_and_gives_one_document(target, capsys):
    assert main(["predict", target, "--sweep"]) == 0
    told = capsys.readouterr().out
    assert main(["predict", target, "--sweep", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)

    assert len(told.splitlines()) < 40
    assert "90 arrays and bandwidths were compared" in told
    assert document["kind"] == "PREDICTED"
    assert len(document["points"]) == 90
    assert document["chips"][0]["energy_joules"] > 0
