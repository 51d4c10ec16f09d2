"""What would bind a run on more devices than were measured: each limit by itself, with its assumption and source."""

from __future__ import annotations

import math
from statistics import NormalDist

from vivace.core.errors import UsageError
from vivace.core.measurement import Interval
from vivace.core.prediction.answer import Limit, Scale
from vivace.devices.catalog import Device
from vivace.devices.collectives import Wire, hierarchical_all_reduce
from vivace.devices.prediction.reliability import (
    LLAMA3_DEVICES,
    LLAMA3_FAILURES,
    LLAMA3_HOURS,
    LLAMA3_SOURCE,
    Failures,
    device_hours_between_failures,
    failures_of,
)

WRITE_SECONDS, RESTART_SECONDS = 60.0, 600.0
"""What a checkpoint and starting again are taken to take where nobody says it; both are told with what follows."""
SPREAD_OF_EIGHT = 0.05
SPREAD_SOURCE = "devices of one node differ by 5% and more (S. Bekman, Machine Learning Engineering, 2026-08)"
RANGE_OF_EIGHT = 2.847
"""The mean distance of the least and the largest of eight normal numbers, in standard deviations; tables of ranges."""
NETWORK_LATENCY_SECONDS = 1e-5
"""For each step over a network: NCCL's own law has 9.6 us for a ring with large messages, and 2.7 and 4.0 us with its
quicker protocols for small ones (NVIDIA, nccl, src/graph/tuning.cc)."""
LINK_LATENCY_SECONDS = 5.4e-6
"""For each device, from measured all-reduces over NVLink of 2 to 8 A100 (vTrain's tables): 5.4 us for each more."""


# What trainings of transformers reached of the peak in bf16: 29% to 64% of A100 and H100 (llm-foundry's table), 64% to
# 70% of TPU v5p (MaxText's table, github.com/AI-Hypercomputer/maxtext, read 2026-11-26); the middle is their median.
REACHED = Interval(0.47, 0.29, 0.70)
NETWORK_SOURCE = "alpha-beta of a ring or of two trees, whichever is quicker, at the rates of the catalogue"
REACHED_SOURCE = "at the 29% to 70% of the peak that published trainings of transformers reached"


def computing_seconds(floor_seconds: float) -> Interval:
    """Seconds of computing where the peak allows no less than these, at the shares that published trainings reached."""
    return Interval(*(floor_seconds / share for share in (REACHED.value, REACHED.high, REACHED.low)))


def stragglers(count: int) -> Interval:
    """How much longer the slowest of `count` devices takes than the mean one, as a share, with the 95% interval of one
    cluster: the largest of n normal numbers, which is below z with the n-th power of one number's probability, times
    the deviation that the spread of eight implies.

    >>> found = stragglers(10000)
    >>> round(found.value, 3), round(found.low, 3), round(found.high, 3)
    (0.067, 0.059, 0.08)
    """
    deviation = SPREAD_OF_EIGHT / RANGE_OF_EIGHT

    def largest(probability: float) -> float:
        return max(0.0, -deviation * NormalDist().inv_cdf(-math.expm1(math.log(probability) / count)))

    return Interval(largest(0.5), largest(0.025), largest(0.975)) if count > 1 else Interval(0.0, 0.0, 0.0)


def scale_of(
    device: Device,
    count: int,
    compute_seconds: Interval,
    gradient_bytes: float,
    sample_bytes: float,
    batch: int,
    write_seconds: float = WRITE_SECONDS,
    restart_seconds: float = RESTART_SECONDS,
    input_bytes_per_second: float | None = None,
    basis: str = "given",
) -> Scale:
    """The limits on a step of `batch` samples over `count` devices, each of which computes for `compute_seconds`, as
    `basis` says where that was taken from.

    `gradient_bytes` are summed over all devices each step. `sample_bytes` are read for each sample from storage that
    gives `input_bytes_per_second`, which only the user knows. A checkpoint takes `write_seconds`, starting again
    `restart_seconds`; the user gives them. Raises UsageError for a batch that leaves devices without a sample.
    """
    if batch < count:
        raise UsageError(f"a batch of {batch} leaves some of {count} devices without a sample; give at least {count}")
    hours = device_hours_between_failures(LLAMA3_FAILURES, LLAMA3_DEVICES, LLAMA3_HOURS)
    failures = failures_of(count, write_seconds, restart_seconds, hours, LLAMA3_SOURCE)
    limits = [
        _network(device, count, compute_seconds, gradient_bytes),
        _input(compute_seconds, sample_bytes, batch, input_bytes_per_second),
        _slowest(count),
        _failing(failures),
    ]
    known = sorted((limit for limit in limits if limit.lost), key=lambda limit: -_value(limit))
    unknown = [limit for limit in limits if limit.lost is None]
    hours, every = failures.hours_between_failures, failures.checkpoint_interval_seconds
    return Scale(device.key, count, (*known, *unknown), hours, every, compute_seconds, basis)


def summing_seconds(device: Device, count: int, size: float) -> float | None:
    """Seconds in which so many devices sum as many bytes each, at the rates of the catalogue: within a node in a ring,
    or in the torus of a slice, and then over nodes in a ring or along trees. None where the catalogue lacks a rate."""
    link, network, domain = device.link_bytes_per_second, device.network_bytes_per_second, device.domain_devices
    if link is None or domain is None or (count > domain and network is None):
        return None
    inside, outside = Wire(LINK_LATENCY_SECONDS, link), Wire(NETWORK_LATENCY_SECONDS, network or link)
    return hierarchical_all_reduce(size, count, domain, inside, outside, device.torus_dimensions)


def exposed_at_best(summing: float, computing: float) -> float:
    """Seconds of summing gradients that the backward pass, two thirds of computing, cannot hide."""
    return max(0.0, summing - (2 / 3) * computing)


def _network(device: Device, count: int, compute: Interval, gradient_bytes: float) -> Limit:
    seconds = summing_seconds(device, count, gradient_bytes)
    if seconds is None:
        missing = "links" if device.link_bytes_per_second is None else "the network between domains"
        return Limit("network", None, f"the catalogue does not know {missing} of {device.key}", "devices/catalog.toml")
    value, low = (_share(exposed_at_best(seconds, part), part) for part in (compute.value, compute.high))
    sized = f"{gradient_bytes / 1e9:.3g} GB of gradients in {seconds * 1e3:.3g} ms"
    text = f"{sized}, hidden behind the backward pass (two thirds of computing) at best, not at all at worst"
    return Limit("network", Interval(value, low, _share(seconds, compute.low)), text, NETWORK_SOURCE)


def _share(exposed: float, computing: float) -> float:
    return exposed / (computing + exposed)


def _input(compute: Interval, sample_bytes: float, batch: int, rate: float | None) -> Limit:
    needed, least, most = (batch * sample_bytes / part / 1e9 for part in (compute.value, compute.high, compute.low))
    needs = f"{needed:.3g} [{least:.3g}, {most:.3g}] GB/s"
    if rate is None:
        text = (
            f"storage must give {needs}, of {sample_bytes:.3g} bytes a sample; yours is not known: give "
            "input_bytes_per_second (--input-rate)"
        )
        return Limit("input", None, text, "counted")
    seconds = batch * sample_bytes / rate
    lost = Interval(*(max(0.0, 1 - part / seconds) for part in (compute.value, compute.high, compute.low)))
    return Limit("input", lost, f"{needs} are needed, {rate / 1e9:.3g} given", "yours")


def _slowest(count: int) -> Limit:
    late = stragglers(count)
    lost = Interval(*(part / (1 + part) for part in (late.value, late.low, late.high)))
    text = "every step waits for the slowest device; speeds are normal, and one that is broken is taken out"
    return Limit("stragglers", lost, text, SPREAD_SOURCE)


def _failing(failures: Failures) -> Limit:
    lost = Interval(1 - failures.useful_share.value, 1 - failures.useful_share.high, 1 - failures.useful_share.low)
    mean, every = failures.hours_between_failures.value, failures.checkpoint_interval_seconds.value
    text = (
        f"one failure in {mean:.3g} h stops all; a checkpoint takes {failures.write_seconds:g} s and is written every "
        f"{every / 60:.3g} min (Daly), starting again takes {failures.restart_seconds:g} s"
    )
    return Limit("failures", lost, text, failures.source)


def _value(limit: Limit) -> float:
    assert limit.lost is not None
    return limit.lost.value
