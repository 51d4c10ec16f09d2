"""Energy from the table, the front of arrays, and sparse weights as they are stored."""

from __future__ import annotations

import numpy as np
import pytest

from vivace.hardware.array.area import Area
from vivace.hardware.array.chip import Chip, Dataflow
from vivace.hardware.array.cycles import Gemm
from vivace.hardware.array.energy import energy_of, scaled, sram_byte
from vivace.hardware.array.memory import Board, time_of
from vivace.hardware.array.sparse import compress, is_two_of_four, storage_bits
from vivace.hardware.array.sweep import SweepPoint, mark_front, sweep

ELEMENT = Area({"NAND": 100}, 0, 100.0)


def test_energy_is_what_the_table_gives_for_what_is_done():
    gemm, chip = Gemm(4, 4, 4), Chip(4, 4)
    board = Board(buffer_bytes=1 << 20)

    found = energy_of(gemm, chip, board, time_of(gemm, chip, board))

    assert found.arithmetic == pytest.approx(64 * 0.3e-12)
    # weights alone come from memory, a byte each: 2 nJ for eight of them
    assert found.memory == pytest.approx(16 * 2e-9 / 8)
    # 16 activations, 16 weights and 16 sums of four bytes, at 100 pJ for eight bytes
    assert found.buffers == pytest.approx((16 + 16 + 64) * 12.5e-12)


def test_a_larger_memory_takes_more_for_a_byte():
    costs = [sram_byte(size) for size in (1 << 12, 8 << 10, 20 << 10, 32 << 10, 1 << 18, 1 << 20, 1 << 24)]

    assert costs == sorted(set(costs))
    assert (sram_byte(8 << 10), sram_byte(32 << 10), sram_byte(1 << 20)) == (1.25, 2.5, 12.5)


def test_an_energy_scales_with_length_and_the_square_of_the_voltage():
    assert scaled(8.0, 90.0, 0.45) == 4.0


def test_the_front_holds_what_nothing_beats_in_all_three():
    points = [
        SweepPoint("fast", 1.0, 1.0, 5.0, 5.0, 0),
        SweepPoint("small", 1.0, 5.0, 5.0, 1.0, 0),
        SweepPoint("beaten", 1.0, 2.0, 5.0, 5.0, 0),
    ]

    assert [point.front for point in mark_front(points)] == [True, True, False]


def test_a_sweep_has_every_size_and_kind_at_each_bandwidth():
    areas = {(Dataflow.WEIGHT, False): ELEMENT, (Dataflow.WEIGHT, True): ELEMENT}

    found = sweep([Gemm(64, 64, 64, sparse=True)], Board(), areas)

    assert len(found) == 5 * 2 * 3
    times = {point.chip: point.seconds for point in found if point.bandwidth == Board().bandwidth}
    assert times["asic:8x8:ws:2of4"] < times["asic:8x8:ws"]


def test_more_bandwidth_is_never_slower():
    found = sweep([Gemm(1, 512, 512), Gemm(49, 64, 576)], Board(), {(Dataflow.OUTPUT, False): ELEMENT})

    by_chip = [[point.seconds for point in found if point.chip == chip] for chip in {point.chip for point in found}]
    assert all(times == sorted(times, reverse=True) for times in by_chip)


def test_sparse_weights_are_stored_as_values_and_places_and_come_back():
    generator = np.random.default_rng(0)
    weights = generator.integers(-127, 128, (22, 5)) * (np.arange(22) % 4 < 2)[:, None]

    values, places, sparse = compress(weights)

    assert sparse
    assert values.shape == (12, 5)
    assert places.max() < 4
    back = np.zeros((24, 5), np.int64)
    steps = np.arange(12)[:, None]
    np.add.at(back, (steps // 2 * 4 + places, np.arange(5)[None, :]), values)
    assert np.array_equal(back[:22], weights)
    assert storage_bits(22, 5, True) == 12 * 5 * 10


def test_three_of_four_weights_are_not_two_of_four():
    assert not is_two_of_four(np.array([[1], [1], [1], [0]]))
