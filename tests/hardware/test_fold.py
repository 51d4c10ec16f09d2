"""The schedule in closed form, the choice of multipliers, and what is said when nothing fits."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from vivace.core.errors import UnsupportedModel, UsageError
from vivace.hardware.chip import fold
from vivace.hardware.chip.parts import PARTS, part
from vivace.hardware.chip.place import cells_within, placing_seconds
from vivace.hardware.rtl.adders import adder_graph
from vivace.hardware.rtl.plan import plan_of, weights_in_order
from vivace.hardware.rtl.schedule import roomy, schedule


@pytest.fixture(scope="module")
def wide(made):
    torch.manual_seed(0)
    return made(nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)), (64,))


def test_the_latency_of_linear_layers_is_the_closed_form(wide):
    found = schedule(plan_of(wide, {0: 32, 1: 10}))

    inputs, first, second = 64, 1 + 8 + 5 + 32 - 1, 1 + 8 + 5 + 10 - 1
    assert found.latency == inputs + first + second


def test_folding_multiplies_the_groups(wide):
    found = schedule(plan_of(wide, {0: 8, 1: 10}))

    assert found.busy[0] == 4 * 65
    assert found.latency == 64 + (1 + 3 * 65 + 8 + 5 + 8 - 1) + (1 + 8 + 5 + 10 - 1)


def test_more_multipliers_never_take_longer(residual):
    latencies = [roomy(residual, {0: lanes, 2: lanes})[1].latency for lanes in (1, 2, 4)]

    assert latencies == sorted(latencies, reverse=True)


def test_line_buffers_hold_a_few_rows_and_not_the_map(made):
    torch.manual_seed(0)
    graph = made(nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 2, 3)), (1, 24, 24))

    plan, _ = roomy(graph, {0: 2, 1: 2})

    assert all(engine.rows < 24 for _, engine in plan.engines)


def test_the_fastest_fold_that_the_part_holds_is_chosen(wide):
    large, small = part("ecp5-85k"), part("ecp5-25k")

    assert fold.fastest(wide, large).lanes == {0: 32, 1: 10}
    assert fold.fastest(wide, small).estimate.multipliers <= small.multipliers * fold.SHARE


def test_the_front_goes_from_small_to_fast(wide):
    points = fold.front(wide, part("ecp5-85k"))

    assert [point.latency for point in points] == sorted((point.latency for point in points), reverse=True)
    assert points[0].estimate.cells < points[-1].estimate.cells
    sizes = [(point.latency, point.cycles, point.estimate.cells) for point in points]
    for size in sizes:  # none is as good as another in everything
        assert not any(all(a <= b for a, b in zip(one, size, strict=True)) for one in sizes if one is not size)


def test_the_cycles_of_a_fold_are_those_of_its_slowest_stage_unrolled_ones_too(made):
    torch.manual_seed(0)
    graph = made(nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 4)), (16,))
    plan = plan_of(graph, {})
    adders = {number: adder_graph(weights_in_order(plan, number)) for number in (0, 1)}

    found = fold.priced(graph, 16, part("ecp5-25k"), adders)

    assert found.cycles == 16 + adders[0].depth + 1 == roomy(graph, {}, adders)[1].interval
    assert [point.cycles for point in fold.front(graph, part("ecp5-25k"), adders)] == [found.cycles]


def test_multipliers_that_were_added_for_the_latency_count_for_the_cycles_too(made):
    torch.manual_seed(0)
    graph = made(nn.Sequential(nn.Linear(20, 24), nn.ReLU(), nn.Linear(24, 12), nn.ReLU(), nn.Linear(12, 5)), (20,))

    found = fold.fastest(graph, part("ecp5-25k"))

    assert found.cycles == roomy(graph, found.lanes)[1].interval


def test_a_wider_word_may_fit_where_one_multiplier_does_not(made):
    torch.manual_seed(0)
    graph = made(nn.Sequential(nn.Linear(784, 480), nn.ReLU(), nn.Linear(480, 10)), (784,))
    here = part("ecp5-85k")
    assert fold.priced(graph, 10**9, here).estimate.lacks(here)

    found = fold.fastest(graph, here)

    assert not found.estimate.lacks(here)
    assert any(point.lanes == found.lanes for point in fold.front(graph, here, None, found))


def test_a_network_that_fits_no_fold_is_told_what_would(made):
    torch.manual_seed(0)
    graph = made(nn.Sequential(nn.Linear(800, 200), nn.ReLU(), nn.Linear(200, 10)), (800,))

    with pytest.raises(
        UnsupportedModel, match=r"memory blocks where ice40-hx8k has 32.*it would fit ecp5-45k, ecp5-85k"
    ):
        fold.fastest(graph, part("ice40-hx8k"))


def test_too_many_multipliers_for_a_layer_are_refused(wide):
    with pytest.raises(UsageError, match="allowed are 1 to 32"):
        plan_of(wide, {0: 33})


def test_an_unknown_chip_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'ecp5-85k'"):
        part("ecp5-85")


def test_every_part_has_what_the_model_needs():
    assert all(one.cells > 0 and one.memory_blocks > 0 and one.standby_watts > 0 for one in PARTS.values())
    assert dataclasses.replace(PARTS["ice40-hx8k"], multipliers=0).has_multipliers is False


def test_cells_are_placed_within_the_time_that_is_estimated_for_them():
    cells = cells_within(60.0)

    assert placing_seconds(cells) <= 60.0 < placing_seconds(cells + 1)


@pytest.mark.parametrize(("cells", "seconds"), [(2689, 16), (3322, 23), (3917, 24), (4257, 29)])
def test_a_placing_is_estimated_at_what_it_took_and_half_as_much_again(cells, seconds):
    assert seconds < placing_seconds(cells) < 2 * seconds


def test_a_netlist_whose_placing_did_not_end_is_estimated_to_take_longer_than_is_allowed():
    assert placing_seconds(19_890) > 600
