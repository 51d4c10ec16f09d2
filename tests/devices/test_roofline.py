"""The roofline against sums done by hand."""

from __future__ import annotations

import dataclasses

import pytest

from vivace.core.compute import Bound
from vivace.core.cost import Cost
from vivace.core.machine import Ceiling, Machine
from vivace.devices.roofline import (
    INT8_GAIN,
    INT8_IN_STEPS_GAIN,
    bound_of,
    ceiling_at,
    default_ceiling,
    device_ceiling,
    is_mostly_overhead,
    place,
    predicted_seconds,
    reach,
)

MACHINE = Machine(
    "p",
    "x86_64",
    ("avx2", "avx512f", "avx512_bf16", "avx512_vnni"),
    4,
    8,
    1 << 34,
    "Linux",
    ceilings=(Ceiling(1, {"f32": 100.0, "bf16": 200.0}, 10.0), Ceiling(4, {"f32": 320.0, "bf16": 640.0}, 30.0)),
)
PLAIN = dataclasses.replace(MACHINE, ceilings=())
WORK = Cost(
    flops=1e9, weight_bytes=0, activation_bytes=0, operators=0, operator_seconds=0, call_seconds=0, efficiency=1
)


def test_arithmetic_bounds_a_call_with_few_bytes() -> None:
    assert predicted_seconds(WORK, MACHINE) == pytest.approx(1e9 / 100e9)


def test_half_the_efficiency_takes_twice_as_long() -> None:
    assert predicted_seconds(WORK.replace(efficiency=0.5), MACHINE) == pytest.approx(2e9 / 100e9)


def test_traffic_bounds_a_call_with_many_bytes() -> None:
    cost = WORK.replace(weight_bytes=6e8, activation_bytes=4e8)
    assert predicted_seconds(cost, MACHINE) == pytest.approx(1e9 / 10e9)


def test_operators_and_the_call_add_their_overhead() -> None:
    cost = WORK.replace(operators=10, operator_seconds=1e-3, call_seconds=0.5)
    assert predicted_seconds(cost, MACHINE) == pytest.approx(0.01 + 0.01 + 0.5)


def test_a_precision_has_its_own_ceiling() -> None:
    assert predicted_seconds(WORK.replace(precision="bf16"), MACHINE) == pytest.approx(1e9 / 200e9)


def test_a_precision_without_a_ceiling_runs_like_f32() -> None:
    assert predicted_seconds(WORK.replace(precision="f16"), MACHINE) == predicted_seconds(WORK, MACHINE)


def test_a_precision_that_was_not_measured_is_guessed_from_what_the_processor_has() -> None:
    steps, dots = (dataclasses.replace(MACHINE, instructions=("avx2", *more)) for more in ((), ("avx_vnni",)))
    assert "int8" not in MACHINE.ceilings[0].gflops
    assert ceiling_at(steps, 4).gflops["int8"] == pytest.approx(320 * INT8_IN_STEPS_GAIN)
    assert ceiling_at(dots, 4).gflops["int8"] == pytest.approx(320 * INT8_GAIN)


def test_threads_between_measurements_scale_the_nearest_one() -> None:
    assert ceiling_at(MACHINE, 3).gflops["f32"] == pytest.approx(320 * 3 / 4)


def test_more_threads_than_allowed_bring_nothing() -> None:
    assert predicted_seconds(WORK.replace(threads=64), MACHINE) == predicted_seconds(WORK.replace(threads=4), MACHINE)


def test_a_machine_that_nobody_measured_has_priors_from_its_instructions() -> None:
    assert default_ceiling(PLAIN, 2).gflops == {"f32": 200.0, "bf16": 400.0, "int8": 800.0}


def test_weights_that_stay_in_the_cache_are_not_streamed() -> None:
    heavy = Cost(flops=1e6, weight_bytes=40e6, activation_bytes=0, operators=0)

    without, half, all_of_it = (predicted_seconds(heavy, MACHINE, cache) for cache in (0, 20_000_000, 40_000_000))

    assert without == pytest.approx(2 * half, rel=0.02)
    assert all_of_it < without / 10


def test_matrix_tiles_bring_bf16_near_int8() -> None:
    tiles = dataclasses.replace(PLAIN, instructions=(*PLAIN.instructions, "amx_tile", "amx_bf16", "amx_int8"))
    assert default_ceiling(tiles, 1).gflops == {"f32": 100.0, "bf16": 700.0, "int8": 900.0}


def test_a_machine_without_wide_vectors_has_no_faster_precision() -> None:
    assert default_ceiling(dataclasses.replace(PLAIN, instructions=()), 1).gflops == {"f32": 25.0}


def test_priors_rank_bf16_before_f32_where_the_instructions_are() -> None:
    assert predicted_seconds(WORK.replace(precision="bf16"), PLAIN) < predicted_seconds(WORK, PLAIN)


def test_a_call_at_the_ceiling_has_the_whole_share_and_is_bound_by_arithmetic() -> None:
    found = reach(WORK, 1e9 / 100e9, MACHINE.ceilings, 0)

    assert found.gflops == pytest.approx(100.0)
    assert (found.share, found.bound) == (pytest.approx(1.0), Bound.ARITHMETIC)


def test_the_share_is_of_the_ceiling_at_the_same_precision_and_threads() -> None:
    found = reach(WORK.replace(precision="bf16", threads=4), 2e9 / 640e9, MACHINE.ceilings, 0)

    assert (found.ceiling_gflops, found.copy_gigabytes_per_second) == (640.0, 30.0)
    assert found.share == pytest.approx(0.5)


def test_weights_that_exceed_the_cache_bound_a_call_by_memory() -> None:
    found = reach(WORK.replace(weight_bytes=1.1e9), 0.2, MACHINE.ceilings, 100_000_000)

    assert found.floor_seconds == pytest.approx(1e9 / 10e9)
    assert found.bound is Bound.MEMORY


@pytest.mark.parametrize("cache", [200_000_000, None])
def test_weights_that_fit_the_cache_or_an_unknown_one_bound_nothing(cache: int | None) -> None:
    found = reach(WORK.replace(weight_bytes=1.1e8), 0.012, MACHINE.ceilings, cache)

    assert (found.floor_seconds, found.bound) == (pytest.approx(0.01), Bound.ARITHMETIC)


def test_a_call_far_above_its_floor_is_bound_by_overhead() -> None:
    assert reach(WORK, 0.03, MACHINE.ceilings, 0).bound is Bound.OVERHEAD


@pytest.mark.parametrize("cost", [WORK.replace(threads=2), WORK.replace(precision="int8")])
def test_without_a_measured_ceiling_there_is_a_rate_and_no_share(cost: Cost) -> None:
    found = reach(cost, 0.01, MACHINE.ceilings, 0)

    assert found.gflops == pytest.approx(100.0)
    assert (found.ceiling_gflops, found.floor_seconds, found.share, found.bound) == (None, None, None, None)


def test_a_tiny_call_far_above_its_floor_is_mostly_overhead_and_a_long_one_or_an_unknown_floor_is_not() -> None:
    work = WORK.replace(flops=1e4)  # a floor of 0.1 us

    assert is_mostly_overhead(reach(work, 14e-6, MACHINE.ceilings, 0))
    assert not is_mostly_overhead(reach(work, 0.9e-6, MACHINE.ceilings, 0))
    assert not is_mostly_overhead(reach(work, 2e-3, MACHINE.ceilings, 0))
    assert not is_mostly_overhead(reach(work.replace(threads=2), 14e-6, MACHINE.ceilings, 0))


def test_an_operator_stands_at_its_operations_a_byte_and_a_second() -> None:
    assert place(flops=6e9, moved_bytes=2e9, seconds=0.5) == (3.0, 12.0)


@pytest.mark.parametrize(("flops", "moved", "seconds"), [(0.0, 1.0, 1.0), (1.0, 0.0, 1.0), (1.0, 1.0, 0.0)])
def test_an_operator_without_work_bytes_or_time_has_no_place(flops: float, moved: float, seconds: float) -> None:
    with pytest.raises(ValueError, match="each must be above zero"):
        place(flops, moved, seconds)


@pytest.mark.parametrize(
    ("flops", "moved", "seconds", "bound"),
    [
        (1e9, 1e6, 0.012, Bound.ARITHMETIC),  # 10 ms of arithmetic, 0.1 ms of copying
        (1e6, 1e8, 0.012, Bound.MEMORY),  # 0.01 ms and 10 ms
        (1e9, 1e6, 0.021, Bound.OVERHEAD),  # less than half of the time is explained
    ],
)
def test_an_operator_is_bound_by_the_ceiling_that_allows_it_the_longer_time(
    flops: float, moved: float, seconds: float, bound: Bound
) -> None:
    assert bound_of(flops, moved, seconds, peak_gflops=100.0, copy_gigabytes_per_second=10.0) is bound


CARD = Ceiling(1, {"f32": 1e4, "tf32": 1e5}, 1000.0, "cuda")


def test_a_call_on_a_card_is_bounded_by_the_card_whatever_the_processor_can() -> None:
    machine = dataclasses.replace(MACHINE, ceilings=(*MACHINE.ceilings, CARD))
    cost = WORK.replace(device="cuda", precision="tf32")
    assert predicted_seconds(cost, machine) == pytest.approx(1e9 / 1e14)
    assert predicted_seconds(WORK, machine) == predicted_seconds(WORK, MACHINE)


def test_weights_of_a_call_on_a_card_do_not_stay_in_the_processors_cache() -> None:
    machine = dataclasses.replace(MACHINE, ceilings=(CARD,))
    cost = WORK.replace(device="cuda", flops=1.0, weight_bytes=1e9)
    assert predicted_seconds(cost, machine, cache_bytes=1 << 40) == pytest.approx(1e9 / 1e12)


def test_a_card_that_nobody_measured_has_a_prior_for_every_precision_of_plans() -> None:
    assert device_ceiling(PLAIN).gflops.keys() == {"f32", "tf32", "bf16", "f16", "int8"}


def test_the_reach_of_a_call_on_a_card_is_of_the_cards_ceiling_only() -> None:
    cost = WORK.replace(device="cuda", threads=4)
    found = reach(cost, 2e-4, [*MACHINE.ceilings, CARD], cache_bytes=0)
    assert (found.device, found.share) == ("cuda", pytest.approx(0.5))
    assert reach(cost, 2e-4, MACHINE.ceilings, cache_bytes=0).share is None
