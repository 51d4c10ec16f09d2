"""The alpha-beta law: limits that any machine keeps, and measured all-reduces."""

from __future__ import annotations

import pytest

from vivace.core.errors import UsageError
from vivace.devices.collectives import Wire, all_gather, all_reduce, hierarchical_all_reduce, tree_all_reduce

WIRE = Wire(1e-6, 1e9)


def test_one_device_exchanges_nothing() -> None:
    assert all_reduce(1e9, 1, WIRE) == all_gather(1e9, 1, WIRE) == tree_all_reduce(1e9, 1, WIRE) == 0.0


def test_many_devices_approach_twice_the_message() -> None:
    assert all_reduce(1e9, 1000, Wire(0, 1e9)) == pytest.approx(2.0, rel=2e-3)


def test_the_tree_has_less_latency_and_the_same_volume() -> None:
    assert tree_all_reduce(0, 64, WIRE) == pytest.approx(2 * 6 * 1e-6)
    assert all_reduce(0, 64, WIRE) == pytest.approx(2 * 63 * 1e-6)
    assert tree_all_reduce(1e9, 64, Wire(0, 1e9)) == all_reduce(1e9, 64, Wire(0, 1e9))


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


def test_domains_that_are_not_full_are_refused() -> None:
    with pytest.raises(UsageError, match="12 devices do not fill domains of 8"):
        hierarchical_all_reduce(1e9, 12, 8, WIRE, WIRE)


@pytest.mark.parametrize(("latency", "rate"), [(-1, 1), (0, 0), (0, -1)])
def test_an_impossible_wire_is_refused(latency: float, rate: float) -> None:
    with pytest.raises(UsageError, match="Wire"):
        Wire(latency, rate)
