"""The alpha-beta law: limits that any machine keeps, and measured all-reduces."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from vivace.core.errors import UsageError
from vivace.devices.catalog import device
from vivace.devices.collectives import (
    Wire,
    all_gather,
    all_reduce,
    hierarchical_all_reduce,
    quickest_all_reduce,
    torus_all_reduce,
    tree_all_reduce,
)
from vivace.devices.prediction.binding import summing_seconds

WIRE = Wire(1e-6, 1e9)


def test_one_device_exchanges_nothing() -> None:
    assert all_reduce(1e9, 1, WIRE) == all_gather(1e9, 1, WIRE) == tree_all_reduce(1e9, 1, WIRE) == 0.0


def test_many_devices_approach_twice_the_message() -> None:
    assert all_reduce(1e9, 1000, Wire(0, 1e9)) == pytest.approx(2.0, rel=2e-3)


def test_trees_have_less_latency_and_hardly_more_volume() -> None:
    assert tree_all_reduce(0, 64, WIRE) == pytest.approx(4 * 6 * 1e-6)
    assert all_reduce(0, 64, WIRE) == pytest.approx(2 * 63 * 1e-6)
    assert tree_all_reduce(1e9, 64, Wire(0, 1e9)) == pytest.approx(64 / 63 * all_reduce(1e9, 64, Wire(0, 1e9)))


@pytest.mark.parametrize(("devices", "size"), [(64, 1e5), (64, 1e8), (1250, 1e6), (1250, 1e9)])
def test_trees_take_what_blocks_of_the_best_size_do(devices: int, size: float) -> None:
    """Half of the message goes down each tree in so many blocks; the last one arrives after the steps of a pipeline,
    in which a device sends to one of its two children at a time. Summing up the trees takes as long."""
    wire, depth = Wire(1e-5, 5e10), math.ceil(math.log2(devices))
    best = min(2 * (2 * depth + 2 * blocks) * wire.message(size / (2 * blocks)) for blocks in range(1, 3000))

    assert _steps_down_a_tree(63, 40) <= 2 * 6 + 2 * 40
    assert tree_all_reduce(size, devices, wire) <= best
    assert tree_all_reduce(size, devices, wire) == pytest.approx(best, rel=0.1)  # blocks are whole


def _steps_down_a_tree(devices: int, blocks: int) -> int:
    """Steps until all of a full binary tree have all blocks: a device sends to its left child in even steps and to its
    right one in odd ones, in each a block that it had before."""
    held, steps = dict.fromkeys(range(2, devices + 1), 0) | {1: blocks}, 0
    while min(held.values()) < blocks:
        before = dict(held)
        for place in range(2 + steps % 2, devices + 1, 2):
            held[place] += before[place // 2] > before[place]
        steps += 1
    return steps


def test_small_messages_of_many_nodes_go_along_trees_and_large_ones_in_a_ring() -> None:
    wire = Wire(1e-5, 5e10)
    assert quickest_all_reduce(1e5, 1250, wire) == tree_all_reduce(1e5, 1250, wire) < all_reduce(1e5, 1250, wire) / 20
    assert quickest_all_reduce(1e12, 1250, wire) == all_reduce(1e12, 1250, wire)
    assert quickest_all_reduce(1e5, 4, wire) == all_reduce(1e5, 4, wire)
    assert quickest_all_reduce(1e5, 1, wire) == 0.0


def test_a_torus_is_its_rings_one_after_the_other() -> None:
    """Each of three parts of the message begins along another dimension, over a third of the links."""
    along, third = 4, Wire(1e-6, 1e9 / 3)
    rings = sum(2 * all_gather(1e9 / 3 / along**before, along, third) for before in range(3))

    assert torus_all_reduce(1e9, 64, 3, Wire(1e-6, 1e9)) == pytest.approx(rings)
    assert torus_all_reduce(0, 60, 3, WIRE) == torus_all_reduce(0, 64, 3, WIRE)
    assert torus_all_reduce(1e9, 1, 3, WIRE) == 0.0


def test_domains_joined_by_a_wire_as_fast_as_their_own_move_the_volume_of_one_ring() -> None:
    wire = Wire(0, 1e9)
    assert hierarchical_all_reduce(1e9, 64, 8, wire, wire) == pytest.approx(all_reduce(1e9, 64, wire))


def test_a_slow_network_is_used_for_a_part_of_the_message() -> None:
    inside, outside = Wire(0, 1e12), Wire(0, 1e9)
    assert hierarchical_all_reduce(8e9, 16, 8, inside, outside) == pytest.approx(1.0, rel=0.05)


def test_measured_all_reduces_of_a100_are_met() -> None:
    """vTrain's tables over NVLink, fitted by two numbers: 8 A100, 79 us and 227 GB/s of bus bandwidth."""
    seconds = all_reduce(1e9, 8, Wire(79e-6 / 14, 227e9))
    assert 2 * 7 / 8 * 1e9 / (seconds - 79e-6) == pytest.approx(227e9, rel=1e-6)


@pytest.mark.parametrize(("devices", "domain"), [(12, 8), (9, 4), (15, 8), (16, 8), (24, 8)])
def test_a_last_domain_with_fewer_devices_takes_as_long_as_bytes_sent_one_by_one(devices: int, domain: int) -> None:
    inside, outside = Wire(3e-6, 4e11), Wire(1e-5, 5e10)

    summed, seconds = _sent(devices, domain, inside, outside)

    size = 4.0 * summed.shape[1]
    assert (summed == summed[0]).all()
    assert summed[0].sum() == sum(range(1, devices + 1)) * summed.shape[1]
    assert hierarchical_all_reduce(size, devices, domain, inside, outside) == pytest.approx(seconds, rel=1e-9)


def _sent(devices: int, domain: int, inside: Wire, outside: Wire) -> tuple[np.ndarray, float]:
    """What devices hold after an all-reduce by domains, and its seconds: numbers move block by block, and the slowest
    sender of each step counts."""
    domains = [list(range(first, min(first + domain, devices))) for first in range(0, devices, domain)]
    size = math.lcm(*map(len, domains), len(domains)) * len(domains) * domain
    held = np.repeat(np.arange(1.0, devices + 1)[:, None], size, 1)
    wholes = np.empty((len(domains), size))
    slowest = 0.0
    for place, members in enumerate(domains):
        own = held[members]
        seconds = _ring_scatter(own, lambda sent: inside.message(4 * sent))
        slowest = max(slowest, seconds)
        wholes[place] = _own_blocks(own)
    between = _ring_scatter(wholes, lambda sent: max(outside.message(4 * sent / len(one)) for one in domains))
    total = _own_blocks(wholes)
    return np.repeat(total[None], devices, 0), 2 * slowest + 2 * between


def _ring_scatter(own: np.ndarray, seconds_of: Callable[[int], float]) -> float:
    """Each sends its neighbour a block, which that adds to its own, until one block of each is the sum of all; the
    seconds, given those of a block of so many numbers. Gathering the blocks again takes as long."""
    count, seconds = len(own), 0.0
    blocks = np.split(np.arange(own.shape[1]), count)
    for step in range(count - 1):
        sent = [
            (one, blocks[(one - step) % count], own[one, blocks[(one - step) % count]].copy()) for one in range(count)
        ]
        for one, block, numbers in sent:
            own[(one + 1) % count, block] += numbers
        seconds += seconds_of(len(blocks[0]))
    return seconds


def _own_blocks(own: np.ndarray) -> np.ndarray:
    """The blocks that are sums of all, one of each, put together."""
    blocks = np.split(np.arange(own.shape[1]), len(own))
    return np.concatenate([own[(place - 1) % len(own), block] for place, block in enumerate(blocks)])


def test_ten_thousand_devices_sum_a_small_model_along_trees_between_nodes() -> None:
    """1,250 nodes: a ring over them alone would take 25 ms, whatever the size."""
    seconds = summing_seconds(device("h100-sxm"), 10_000, 1e6)

    inside = all_reduce(1e6, 8, Wire(5.4e-6, 4.5e11))
    assert seconds == pytest.approx(inside + tree_all_reduce(1e6 / 8, 1250, Wire(1e-5, 5e10)))
    assert seconds < 1e-3


def test_chips_of_a_slice_sum_in_their_torus_and_slices_over_the_network() -> None:
    within, beyond = summing_seconds(device("tpu-v5p"), 8000, 1e6), summing_seconds(device("tpu-v5e"), 1024, 1e6)

    assert within == pytest.approx(2 * 3 * 19 * 5.4e-6 + 2 * 7999 / 8000 * 1e6 / 6e11)
    slices = quickest_all_reduce(1e6 / 256, 4, Wire(1e-5, 3.125e9))
    assert beyond == pytest.approx(2 * 2 * 15 * 5.4e-6 + 2 * 255 / 256 * 1e6 / 2e11 + slices)


def test_devices_beyond_whole_nodes_are_summed_over_too() -> None:
    """32 DGX H100 nodes hold 256 devices; of the next node's, four share what its eight would send."""
    h100 = device("h100-sxm")
    full, started = summing_seconds(h100, 256, 1e9), summing_seconds(h100, 260, 1e9)

    assert full is not None and started is not None
    assert started > 1.5 * full


@pytest.mark.parametrize(("latency", "rate"), [(-1, 1), (0, 0), (0, -1)])
def test_an_impossible_wire_is_refused(latency: float, rate: float) -> None:
    with pytest.raises(UsageError, match="Wire"):
        Wire(latency, rate)
