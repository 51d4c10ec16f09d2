"""The ranking follows the roofline until measurements teach it otherwise."""

from __future__ import annotations

import pytest

from search.toys import MACHINE, WORK, Engine, Halve, Prune, Repair, Turbine
from vivace.core.plan import Plan
from vivace.devices.roofline import predicted_seconds
from vivace.search.rank import Ranking


def ranking() -> Ranking:
    """Over the toy job."""
    return Ranking(WORK.cost, lambda cost: predicted_seconds(cost, MACHINE))


def test_without_measurements_less_work_is_predicted_to_be_faster() -> None:
    plans = [Plan(), Plan.of([Turbine()]), Plan.of([Engine()])]

    assert ranking().ordered(plans) == [Plan.of([Engine()]), Plan.of([Turbine()]), Plan()]


def test_a_measured_plan_is_predicted_as_measured() -> None:
    known = ranking()

    known.learn(Plan.of([Engine()]), 0.5)

    assert known.predicted_seconds(Plan.of([Engine()])) == pytest.approx(0.5)


def test_a_slow_measurement_lowers_plans_with_the_same_compiler_only() -> None:
    known = ranking()
    before = known.predicted_seconds(Plan.of([Turbine()]))
    known.learn(Plan.of([Turbine()]), before)

    known.learn(Plan.of([Engine()]), 100 * known.predicted_seconds(Plan.of([Engine()])))

    assert known.ordered([Plan.of([Halve(), Engine()]), Plan.of([Turbine()])])[0] == Plan.of([Turbine()])
    assert known.predicted_seconds(Plan.of([Turbine()])) == pytest.approx(before)


def test_what_a_precision_is_worth_is_expected_of_plans_that_add_to_it_too() -> None:
    known = ranking()
    slower, faster = Plan.of([Engine()]), Plan.of([Halve(), Engine()])
    known.learn(slower, 2 * known.predicted_seconds(slower))
    known.learn(faster, known.predicted_seconds(faster) / 2)

    more = Plan.of([Prune(), Halve(), Engine()])

    assert known.predicted_seconds(more) == pytest.approx(known.predicted_seconds(faster) / 4, rel=0.01)


@pytest.mark.parametrize("mended", [(), (Repair(),)])
def test_what_a_technique_brought_beside_one_compiler_is_expected_beside_another(mended: tuple[Repair, ...]) -> None:
    known = ranking()
    alone, other = Plan.of([Engine()]), Plan.of([Turbine()])
    known.learn(alone, 0.6)
    known.learn(other, 0.9)

    known.learn(Plan.of([Prune(), *mended, Engine()]), 0.5)

    assert known.predicted_seconds(Plan.of([Prune(), Turbine()])) == pytest.approx(0.9 * 0.5 / 0.6)
