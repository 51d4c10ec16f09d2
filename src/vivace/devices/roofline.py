"""The roofline: how long a counted amount of work should take on a machine, for ranking plans before any is built."""

from __future__ import annotations

from collections.abc import Sequence

from vivace.core.compute import Bound, Reach
from vivace.core.cost import Cost
from vivace.core.facts import Fact
from vivace.core.machine import Ceiling, Machine

# Priors for one core of a machine whose ceilings were not measured. They rank plans and never reach a report as
# measured. The first is half of what two Zen 4 cores with AVX-512 gave (208 GFLOP/s f32, 446 bf16, 900 int8, measured
# for this project in 2026); a core with AVX2 has vectors half as wide, one with neither half again.
AVX512_CORE_GFLOPS = 100.0
AVX2_CORE_GFLOPS = 50.0
PLAIN_CORE_GFLOPS = 25.0
CORE_GIGABYTES_PER_SECOND = 12.0
MACHINE_GIGABYTES_PER_SECOND = 40.0
BF16_GAIN = 2.0
"""A core with bf16 products does about twice as many of them as of f32 ones (446/208 measured, see above)."""
INT8_GAIN = 4.0
"""A core with int8 dot products does about four times as many (900/208 measured, see above)."""
INT8_IN_STEPS_GAIN = 1.8
"""A core that adds products of bytes in two steps: 168/92 measured on a Zen 3 core with AVX2 for this project, 2026."""
TILE_GAINS = {"amx_bf16": ("bf16", 7.0), "amx_int8": ("int8", 9.0)}
"""A core with matrix tiles: 169 GFLOP/s f32, 1,205 bf16 and 1,540 int8 (one core of a Xeon with AMX, measured by
`vivace doctor` for this project in 2026)."""
DEVICE_CACHE_BYTES = 50 << 20
"""Second-level cache of a large card (H100: NVIDIA H100 Tensor Core GPU Architecture, 2022); a smaller card's is less,
so that its floor is a little low."""
DEVICE_PRIOR = Ceiling(1, {"f32": 2e4, "tf32": 1e5, "bf16": 2e5, "f16": 2e5, "int8": 4e5}, 1000.0, "cuda")
"""A card that nobody measured: the order of a data-centre card of 2020 (NVIDIA A100 Tensor Core GPU Architecture, 2020:
19.5 TFLOP/s float32, 156 TF32, 312 bfloat16, 1,555 GB/s), about two thirds of it. Ranks plans, never reported."""
MOSTLY = 0.5
"""A floor of at least this share of the time is what bounds a call; below it most of the time goes elsewhere."""
TINY_SECONDS = 1e-3
"""A call that is shorter may be little more than the overhead of calling."""
HARDLY = 0.1
"""A floor under this share of a tiny call's time: the overhead is the work."""


def predicted_seconds(cost: Cost, machine: Machine, cache_bytes: int = 0) -> float:
    """Seconds of one call, PREDICTED.

    seconds = max(flops / (peak * efficiency), bytes / bandwidth) + operators * operator_seconds + call_seconds

    `peak` is the ceiling of the cost's precision with the cost's threads (never more threads than the machine allows);
    `bytes` are activations, and what of the weights does not fit in the last-level cache (`cache_bytes`). Uses the
    machine's measured ceilings, and documented priors where there are none. A precision without a ceiling runs at the
    rate of f32. Source: Williams, Waterman and Patterson, "Roofline", Communications of the ACM 52(4), 2009.

    >>> machine = Machine("p", "x86_64", (), 1, 1, 0, "Linux", ceilings=(Ceiling(1, {"f32": 100.0}, 10.0),))
    >>> round(predicted_seconds(Cost(flops=1e9, weight_bytes=0, activation_bytes=0, operators=0), machine), 4)
    0.02
    """
    if cost.device == "cpu":
        ceiling = ceiling_at(machine, max(1, min(cost.threads, machine.cores_allowed)))
    else:
        ceiling, cache_bytes = device_ceiling(machine), 0
    peak = ceiling.gflops.get(cost.precision, ceiling.gflops["f32"]) * 1e9
    arithmetic = cost.flops / (peak * cost.efficiency)
    streamed = max(0.0, cost.weight_bytes - cache_bytes) + cost.activation_bytes
    traffic = streamed / (ceiling.copy_gigabytes_per_second * 1e9)
    return max(arithmetic, traffic) + cost.operators * cost.operator_seconds + cost.call_seconds


def reach(cost: Cost, seconds: float, ceilings: Sequence[Ceiling], cache_bytes: int | None) -> Reach:
    """How near a call that took `seconds` came to the machine's measured ceilings; never to priors.

    floor = max(flops / peak, max(0, weight_bytes - cache_bytes) / bandwidth), share = floor / seconds

    `peak` and `bandwidth` are those measured with the cost's precision and threads; without them the share is None.
    Weights that fit in the last-level cache need not be read at each call, and what operators hand to each other may
    stay there too, so neither is in the floor (`cache_bytes` None: nothing is known, and memory bounds nothing). Where
    the floor is under MOSTLY of the time the rest bounds the call: launching, moving intermediate values, kernels below
    the ceiling. Source: Williams, Waterman and Patterson, "Roofline", Communications of the ACM 52(4), 2009.

    >>> cost = Cost(flops=1e9, weight_bytes=0, activation_bytes=0, operators=1, threads=1)
    >>> found = reach(cost, 0.016, [Ceiling(1, {"f32": 100.0}, 10.0)], 0)
    >>> round(found.gflops, 1), found.floor_seconds, round(found.share, 3), found.bound.value
    (62.5, 0.01, 0.625, 'arithmetic')
    """
    rate = cost.flops / seconds / 1e9
    found = next((one for one in ceilings if is_of(one, cost)), None)
    if found is None:
        return Reach(seconds, rate, cost.precision, cost.threads, device=cost.device)
    peak, bandwidth = found.gflops[cost.precision], found.copy_gigabytes_per_second
    arithmetic = cost.flops / (peak * 1e9)
    if cost.device != "cpu":  # the processor's cache is not the device's, whose own holds some tens of MB
        cache_bytes = DEVICE_CACHE_BYTES
    streamed = 0.0 if cache_bytes is None else max(0.0, cost.weight_bytes - cache_bytes)
    memory = streamed / (bandwidth * 1e9)
    floor, bound = max(arithmetic, memory), _bound(arithmetic, memory, seconds)
    return Reach(
        seconds, rate, cost.precision, cost.threads, peak, bandwidth, floor, floor / seconds, bound, cost.device
    )


def is_of(ceiling: Ceiling, cost: Cost) -> bool:
    """Whether a ceiling was measured where and with what a call of this cost runs."""
    if ceiling.device != cost.device or cost.precision not in ceiling.gflops:
        return False
    return cost.device != "cpu" or ceiling.threads == cost.threads


def is_mostly_overhead(found: Reach) -> bool:
    """Whether a call is tiny and its floor at the measured ceilings hardly a part of it.

    >>> is_mostly_overhead(Reach(14e-6, 1.0, "f32", 1, 100.0, 10.0, 0.3e-6, 0.02, Bound.OVERHEAD))
    True
    """
    return found.share is not None and found.share < HARDLY and found.seconds < TINY_SECONDS


def place(flops: float, moved_bytes: float, seconds: float) -> tuple[float, float]:
    """Where an operator stands in the roofline: floating-point operations a byte, and 10^9 of them a second.

    Raises ValueError for an operator without work, bytes or time, which has no place there.

    >>> place(flops=2e9, moved_bytes=1e9, seconds=0.5)
    (2.0, 4.0)
    """
    if min(flops, moved_bytes, seconds) <= 0:
        raise ValueError(f"flops={flops}, moved_bytes={moved_bytes}, seconds={seconds}: each must be above zero")
    return flops / moved_bytes, flops / seconds / 1e9


def bound_of(
    flops: float, moved_bytes: float, seconds: float, peak_gflops: float, copy_gigabytes_per_second: float
) -> Bound:
    """What bounds an operator: the ceiling that allows it the longer time, or overhead where that is under MOSTLY of
    what it took.

    >>> bound_of(flops=1e9, moved_bytes=1e9, seconds=0.15, peak_gflops=100.0, copy_gigabytes_per_second=10.0).value
    'memory'
    """
    return _bound(flops / (peak_gflops * 1e9), moved_bytes / (copy_gigabytes_per_second * 1e9), seconds)


def _bound(arithmetic: float, memory: float, seconds: float) -> Bound:
    """What bounds a call of so many seconds whose arithmetic and memory traffic allow no less than these."""
    if max(arithmetic, memory) < MOSTLY * seconds:
        return Bound.OVERHEAD
    return Bound.MEMORY if memory > arithmetic else Bound.ARITHMETIC


def ceiling_at(machine: Machine, threads: int) -> Ceiling:
    """The measured ceiling with this count of threads; else the nearest one, scaled by threads; else priors.

    A precision that was not measured is guessed from f32.
    """
    measured = [ceiling for ceiling in machine.ceilings if ceiling.device == "cpu"]
    if not measured:
        return default_ceiling(machine, threads)
    nearest = min(measured, key=lambda ceiling: abs(ceiling.threads - threads))
    scale = threads / nearest.threads
    rates = {precision: nearest.gflops["f32"] * gain for precision, gain in _gains(machine).items()}
    scaled = {precision: rate * scale for precision, rate in {**rates, **nearest.gflops}.items()}
    return Ceiling(threads, scaled, nearest.copy_gigabytes_per_second * min(1.0, scale))


def _gains(machine: Machine) -> dict[str, float]:
    """How many times as many products as of f32 a core does, by precision."""
    facts, gains = machine.facts(), {"f32": 1.0}
    if Fact.BF16_INSTRUCTIONS in facts:
        gains["bf16"] = BF16_GAIN
    if Fact.INT8_PRODUCTS in facts:
        gains["int8"] = INT8_IN_STEPS_GAIN
    if Fact.INT8_INSTRUCTIONS in facts:
        gains["int8"] = INT8_GAIN
    return gains | {precision: gain for name, (precision, gain) in TILE_GAINS.items() if name in machine.instructions}


def device_ceiling(machine: Machine) -> Ceiling:
    """The measured ceiling of the machine's CUDA device; priors where it was not measured."""
    return next((ceiling for ceiling in machine.ceilings if ceiling.device == "cuda"), DEVICE_PRIOR)


def default_ceiling(machine: Machine, threads: int) -> Ceiling:
    """What to expect of a machine that nobody measured, from its instruction sets alone."""
    sets = set(machine.instructions)
    base = AVX512_CORE_GFLOPS if "avx512f" in sets else AVX2_CORE_GFLOPS if "avx2" in sets else PLAIN_CORE_GFLOPS
    rates = {precision: base * gain for precision, gain in _gains(machine).items()}
    bandwidth = min(threads * CORE_GIGABYTES_PER_SECOND, MACHINE_GIGABYTES_PER_SECOND)
    return Ceiling(threads, {precision: rate * threads for precision, rate in rates.items()}, bandwidth)
