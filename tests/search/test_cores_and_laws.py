"""What threads and copies made of a call, beside the laws of Amdahl and Gustafson."""

from __future__ import annotations

import pytest

from vivace.core.measurement import Interval, Outcome
from vivace.core.plan import Plan
from vivace.core.result import Trial, TrialStage
from vivace.devices.scaling import Law, amdahl, fitted_serial, gustafson
from vivace.search.account.cores import cores_of
from vivace.techniques.parallel.instances import Instances
from vivace.techniques.parallel.threads import Threads


def trial(value: float, *techniques: Threads | Instances, outcome: Outcome = Outcome.OK, error: float = 0.01) -> Trial:
    interval = Interval(value, value / (1 + error), value * (1 + error))
    return Trial(Plan.of(techniques), outcome, TrialStage.SEARCH, speedup=interval)


SEEN = [
    trial(0.5, Threads(1)),
    trial(0.5 * amdahl(0.1, 2), Threads(2)),
    trial(0.5 * amdahl(0.1, 4), Instances(4)),
    trial(0.5 * amdahl(0.1, 4) / 1.2, Instances(2)),
    trial(9.0, Instances(8), outcome=Outcome.WRONG_OUTPUT),
]


def test_both_laws_are_fitted_to_the_fastest_way_of_each_count_of_cores() -> None:
    (found,) = cores_of(SEEN, 4)

    assert [(one.cores, one.instances, one.threads) for one in found.counts] == [(2, 1, 2), (4, 2, 2), (4, 4, 1)]
    assert found.is_fitted
    assert found.amdahl_serial.value == pytest.approx(0.1)
    speedups = {2: amdahl(0.1, 2), 4: amdahl(0.1, 4)}
    expected = fitted_serial(Law.GUSTAFSON, speedups)
    assert found.gustafson_serial.value == pytest.approx(expected.value)
    assert found.gustafson_serial.high == pytest.approx(expected.high)


def test_one_count_implies_the_part_with_the_interval_of_its_speedup() -> None:
    (found,) = cores_of([trial(0.5, Threads(1)), trial(0.8, Instances(2))], 2)

    ratio = found.counts[0].speedup
    assert not found.is_fitted
    assert ratio.value == pytest.approx(1.6)
    assert ratio.low < ratio.value < ratio.high
    assert amdahl(found.amdahl_serial.high, 2) == pytest.approx(ratio.low)
    assert amdahl(found.amdahl_serial.low, 2) == pytest.approx(ratio.high)
    assert gustafson(found.gustafson_serial.value, 2) == pytest.approx(1.6)


@pytest.mark.parametrize("seen", [[], SEEN[1:], [SEEN[0]], [trial(1.0), trial(1.5, Instances(2))]])
def test_without_one_thread_or_without_more_there_is_no_law(seen: list[Trial]) -> None:
    assert cores_of(seen, 4) == ()
