"""Closed forms of a systolic array against SCALE-Sim and a published chip, and what waits for memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from vivace.core.errors import UsageError
from vivace.hardware.array.chip import Chip, Dataflow, chip_of
from vivace.hardware.array.cycles import Gemm, compute_cycles, tile_cycles, utilization
from vivace.hardware.array.memory import Board, time_of
from vivace.hardware.array.published import TPU_V1

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guide" / "asic.md"
# SCALE-Sim 3.0.0, 32 x 32, cycles of each product [M, N, K]: outputs, weights, inputs at rest; weights of which 2 of 4
SCALE_SIM = {
    (64, 64, 64): (503, 631, 631, 315),
    (128, 256, 512): (18_367, 28_415, 22_399, 14_207),
    (197, 768, 768): (139_439, 167_615, 144_815, 83_807),
    (100, 100, 100): (2_591, 3_103, 3_103, 1_551),
}
KINDS = (
    Chip(32, 32, Dataflow.OUTPUT),
    Chip(32, 32, Dataflow.WEIGHT),
    Chip(32, 32, Dataflow.INPUT),
    Chip(32, 32, Dataflow.WEIGHT, sparse=True),
)


@pytest.mark.parametrize("sizes", SCALE_SIM, ids=str)
@pytest.mark.parametrize("kind", range(4), ids=[chip.name for chip in KINDS])
def test_cycles_equal_scale_sim(sizes, kind):
    assert compute_cycles(Gemm(*sizes, sparse=kind == 3), KINDS[kind]) == SCALE_SIM[sizes][kind]


@pytest.mark.parametrize("name", ["MLP0", "MLP1", "LSTM0", "CNN0"])
def test_the_regular_workloads_of_tpu_v1_are_within_a_fifth_of_the_published(name):
    found = next(one for one in TPU_V1 if one.name == name)

    assert abs(found.error) < 0.2


@pytest.mark.parametrize("found", TPU_V1, ids=lambda found: found.name)
def test_the_guide_tells_what_the_model_gives(found):
    assert f"| {found.name} | {found.predicted:.1f} | {found.tera_operations:.1f} |" in GUIDE.read_text(
        encoding="utf-8"
    )


@pytest.mark.parametrize("name", ["LSTM1", "CNN1"])
def test_the_irregular_workloads_of_tpu_v1_are_told_with_the_reason(name):
    found = next(one for one in TPU_V1 if one.name == name)

    assert found.error > 1
    assert found.irregular in found.sentence()


def test_what_waits_for_memory_takes_the_time_of_its_bytes():
    gemm, chip = Gemm(1, 1024, 1024), Chip(16, 16)
    board = Board(hertz=1e9, bandwidth=1e9, buffer_bytes=1 << 20)

    found = time_of(gemm, chip, board)

    assert found.memory_bound
    assert found.bytes == 1024 * 1024
    # a byte a cycle, and the last tile's own cycles after its operands are there
    assert found.cycles == 1024 * 1024 + tile_cycles(gemm, chip) - 1


def test_what_does_not_wait_takes_the_cycles_of_the_closed_form_and_its_first_operands():
    gemm, chip = Gemm(512, 64, 64), Chip(16, 16)
    board = Board(hertz=1e9, bandwidth=16e9, buffer_bytes=1 << 20)

    found = time_of(gemm, chip, board)

    assert not found.memory_bound
    assert found.stall_cycles == 16 * 16 / 16


@pytest.mark.parametrize("flow", Dataflow)
def test_activations_that_do_not_fit_travel_once_for_each_block_that_needs_them(flow):
    gemm, chip = Gemm(64, 32, 48), Chip(16, 16, flow)
    board = Board(buffer_bytes=1.0)
    blocks = {Dataflow.OUTPUT: (4, 2), Dataflow.WEIGHT: (1, 2), Dataflow.INPUT: (4, 1)}[flow]

    found = time_of(gemm, chip, board)

    # weights and activations as often as tiles need them, outputs once
    assert found.bytes == blocks[0] * 32 * 48 + blocks[1] * 64 * 48 + 64 * 32


def test_two_of_four_weights_take_half_the_steps_and_five_eighths_of_the_bytes():
    dense, half = Gemm(1, 256, 256), Gemm(1, 256, 256, sparse=True)
    chip = Chip(16, 16, sparse=True)

    assert time_of(half, chip, Board()).bytes == 0.625 * time_of(dense, chip, Board()).bytes
    assert (compute_cycles(half, chip) + 1) * 2 == compute_cycles(dense, chip) + 1


def test_a_full_array_is_used_whole_but_for_filling_and_emptying():
    gemm, chip = Gemm(10_000, 16, 16), Chip(16, 16)

    assert utilization(gemm, chip, compute_cycles(gemm, chip)) == 10_000 / (10_000 + 46)


@pytest.mark.parametrize(
    "text",
    ["asic", "asic:16", "asic:16x", "asic:16x16:wt", "asic:16x16:2of8", "asic:16x16:ws:os", "asic:ax4", "ASIC:4X4"],
)
def test_a_name_that_cannot_be_read_is_told_what_is_allowed(text):
    with pytest.raises(UsageError, match=r"allowed is asic:ROWSxCOLUMNS\[:os\|ws\|is\]\[:2of4\]"):
        chip_of(text)


@pytest.mark.parametrize("text", ["asic:0x4", "asic:4x1025"])
def test_a_size_that_is_out_of_range_is_told_the_range(text):
    with pytest.raises(UsageError, match="allowed are 1 to 1024 rows and columns"):
        chip_of(text)


@pytest.mark.parametrize("text", ["asic:4x8:os", "asic:16x16:is:2of4", "asic:1x1:ws"])
def test_a_name_is_written_as_it_was_read(text):
    assert chip_of(text).name == text


@pytest.mark.parametrize("given", [0, -1.0, float("nan"), float("inf"), "16", True])
def test_a_bandwidth_that_is_none_is_refused(given):
    with pytest.raises(UsageError, match=r"the bandwidth of a chip is .*; allowed is a number above 0"):
        Board(bandwidth=given)


@pytest.mark.parametrize("sizes", [(0, 1, 1), (1, -2, 1), (1, 1, 1.5), (True, 1, 1)])
def test_sizes_that_make_no_product_are_refused(sizes):
    with pytest.raises(UsageError, match="allowed are whole numbers, 1 or more"):
        Gemm(*sizes)
