"""What failures cost a large run: the time between them, how often to write a checkpoint, what time is left."""

from __future__ import annotations

import dataclasses
import math

from vivace.core.errors import UsageError
from vivace.core.measurement import Interval
from vivace.devices.scaling import NORMAL95

# 419 unexpected interruptions in 54 days on 16,384 H100: The Llama 3 Herd of Models, arXiv 2407.21783, section 3.3.4,
# as reported by datacenterdynamics.com, 2024-07; read 2026-11-26.
LLAMA3_FAILURES, LLAMA3_DEVICES, LLAMA3_HOURS = 419, 16384, 54 * 24.0
LLAMA3_SOURCE = "419 failures in 54 days on 16,384 H100 (Llama 3, arXiv 2407.21783)"


def device_hours_between_failures(failures: int, devices: int, hours: float) -> Interval:
    """Hours that one device runs between failures of the whole job that it causes, with the 95% interval of a count.

    value = devices * hours / failures; the count is Poisson's, its interval by the square root: failures +- 1.96
    sqrt(failures), which is good for 30 failures or more. Raises UsageError for fewer, which tell too little.

    >>> round(device_hours_between_failures(419, 16384, 54 * 24).value)
    50677
    """
    if failures < 30:
        raise UsageError(f"failures is {failures}; allowed are 30 or more, since fewer tell too little")
    reach = NORMAL95 * math.sqrt(failures)
    return Interval(*(devices * hours / count for count in (failures, failures + reach, failures - reach)))


def daly_interval_seconds(write_seconds: float, mean_seconds_between_failures: float) -> float:
    """Seconds of work between two checkpoints that make the whole run shortest.

    With d to write one and M between failures: sqrt(2 d M) (1 + sqrt(d / 2M) / 3 + (d / 2M) / 9) - d for d < 2 M, and M
    otherwise. Source: J. T. Daly, Future Generation Computer Systems 22(3), 2006, equation 37; its examples are 117, 57
    and 9.1 minutes for 5 minutes to write and 24 hours, 6 hours and 15 minutes between failures.

    >>> [round(daly_interval_seconds(5, mean), 1) for mean in (24 * 60, 6 * 60, 15)]
    [116.7, 56.7, 9.1]
    """
    ratio = write_seconds / (2 * mean_seconds_between_failures)
    if not write_seconds > 0 or not mean_seconds_between_failures > 0:
        raise UsageError(
            f"write_seconds={write_seconds} and mean_seconds_between_failures={mean_seconds_between_failures}; allowed "
            "are times above 0"
        )
    if ratio >= 1:
        return mean_seconds_between_failures
    root = math.sqrt(2 * write_seconds * mean_seconds_between_failures)
    return root * (1 + math.sqrt(ratio) / 3 + ratio / 9) - write_seconds


def useful_share(
    interval_seconds: float, write_seconds: float, restart_seconds: float, mean_seconds_between_failures: float
) -> float:
    """The share of the wall time that is work which is kept.

    share = t / (M exp(R/M) (exp((t + d)/M) - 1)), t between checkpoints, d to write one, R to start again, M between
    failures that come at random. Source: Daly, as above, equation 20.

    >>> round(useful_share(7000, 300, 600, 86400), 3)
    0.913
    """
    mean = mean_seconds_between_failures
    lost = mean * math.exp(restart_seconds / mean) * math.expm1((interval_seconds + write_seconds) / mean)
    return interval_seconds / lost


@dataclasses.dataclass(frozen=True)
class Failures:
    """What failures do to a run on many devices, PREDICTED. Each field follows from `hours_per_device`, whose origin
    `source` tells, and from the times to write a checkpoint and to start again."""

    devices: int
    hours_per_device: Interval
    source: str
    hours_between_failures: Interval
    checkpoint_interval_seconds: Interval
    useful_share: Interval
    write_seconds: float
    restart_seconds: float


def failures_of(
    devices: int, write_seconds: float, restart_seconds: float, hours_per_device: Interval, source: str
) -> Failures:
    """What failures do to a run on so many devices, one failure stopping all.

    >>> hours = device_hours_between_failures(LLAMA3_FAILURES, LLAMA3_DEVICES, LLAMA3_HOURS)
    >>> round(failures_of(10000, 60, 600, hours, LLAMA3_SOURCE).hours_between_failures.value, 2)
    5.07
    """
    means = [hours * 3600 / devices for hours in (hours_per_device.value, hours_per_device.low, hours_per_device.high)]
    steps = [daly_interval_seconds(write_seconds, mean) for mean in means]
    shares = [useful_share(step, write_seconds, restart_seconds, mean) for step, mean in zip(steps, means, strict=True)]
    return Failures(
        devices,
        hours_per_device,
        source,
        Interval(*(mean / 3600 for mean in means)),
        Interval(*steps),
        Interval(*shares),
        write_seconds,
        restart_seconds,
    )
