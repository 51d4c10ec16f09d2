"""The law of steps on several processes of one machine: its parts, what it learns, and where it stops."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from vivace.core.errors import UsageError
from vivace.devices.collectives import Wire, all_reduce
from vivace.devices.prediction.processes import (
    PRIOR,
    Law,
    Share,
    Spread,
    Wires,
    fit_processes,
    fitted_wire,
    pipeline_seconds,
    predicted_step,
    seconds_of,
    traffic_seconds,
)

WIRE = Wire(1e-4, 1e9)
WIRES = Wires(WIRE, WIRE, WIRE)
SHARE = Share(Spread.DATA, 2, 0.02, 0.02, 3, 4e6, 8)
LAW = Law(PRIOR, 1.2, 2)


def varied() -> list[Share]:
    """Six shares of each way to spread, unlike each other."""
    random = np.random.default_rng(0)
    return [
        Share(spread, 2, seconds, 0.8 * seconds, int(exchanges), size, int(tensors))
        for spread in Spread
        for seconds, exchanges, size, tensors in zip(
            random.uniform(2e-3, 5e-2, 6), random.integers(2, 30, 6), 10 ** random.uniform(3, 7, 6),
            random.integers(2, 60, 6), strict=True,
        )
    ]  # fmt: skip


def test_a_pipeline_takes_every_stage_once_and_the_slowest_for_each_further_micro_batch() -> None:
    assert pipeline_seconds([2.0, 3.0], 1) == (5.0, 0.0)
    assert pipeline_seconds([2.0, 3.0], 4) == (5.0 + 3 * 3.0, 3 * 2.0)
    assert pipeline_seconds([1.0, 1.0], 8) == (9.0, 7.0)


def test_only_computing_that_others_compute_beside_takes_longer_for_it() -> None:
    lonely = dataclasses.replace(SHARE, crowded_seconds=0.0)
    crowded, without = seconds_of([SHARE, lonely], WIRES, PRIOR)

    assert crowded - without == pytest.approx((np.exp(PRIOR[0]) - 1) * 0.02)


def test_a_wire_is_found_in_what_exchanges_took() -> None:
    wire = Wire(1.5e-4, 2e9)
    found = fitted_wire({size: all_reduce(size, 2, wire) for size in (4.0, 1e5, 1e6, 1e7)}, 2, 1.0)

    assert found.latency_seconds == pytest.approx(1.5e-4, rel=1e-6)
    assert found.bytes_per_second == pytest.approx(2e9, rel=1e-6)


def test_a_sharded_step_moves_its_bytes_three_times_half_as_far_as_a_sum() -> None:
    sharded = dataclasses.replace(SHARE, spread=Spread.SHARD)

    assert traffic_seconds(sharded, WIRES) == pytest.approx(1.5 * traffic_seconds(SHARE, WIRES))


def test_a_law_finds_again_what_steps_were_made_by() -> None:
    shares, truth = varied(), PRIOR + np.random.default_rng(1).normal(0.0, 0.4, len(PRIOR)) * (np.arange(17) > 0)
    law = fit_processes(shares[:-1], seconds_of(shares[:-1], WIRES, truth).tolist(), WIRES)

    found = predicted_step(law, shares[-1], WIRES)

    (true,) = seconds_of([shares[-1]], WIRES, truth)
    assert found.value == pytest.approx(true, rel=0.05)
    assert found.low < true < found.high


def test_what_is_exchanged_more_often_or_in_more_bytes_takes_longer() -> None:
    seconds = [predicted_step(LAW, one, WIRES).value for one in (
        SHARE, dataclasses.replace(SHARE, exchanges=6), dataclasses.replace(SHARE, exchanges=6, exchanged_bytes=8e6)
    )]  # fmt: skip

    assert seconds == sorted(set(seconds))


def test_more_processes_than_were_measured_are_refused() -> None:
    with pytest.raises(UsageError, match="no measurement of 3 processes; measured are 2 to 2 on this machine"):
        predicted_step(LAW, dataclasses.replace(SHARE, processes=3), WIRES)
