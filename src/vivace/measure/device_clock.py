"""The clock of a CUDA device: a block that was timed while it ran far below its base clock is timed again."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

LEAST_SHARE = 0.75
"""Blocks below this share of the base clock are redone: the card was cooling, idle or short of power."""
MOST_TRIES = 4

Share = Callable[[], float | None]
"""The device's clock now over its base clock; None where either is unknown."""


class ClockWatch:
    """Times blocks and looks at the clock after each; counts what was redone, and what stayed slow all the same.

    >>> shares = iter([0.4, 1.1])
    >>> watch = ClockWatch(lambda: next(shares))
    >>> watch.timed(lambda: [0.002]), watch.redone, watch.slow
    ([0.002], 1, 0)
    """

    def __init__(self, share: Share) -> None:
        self._share = share
        self.redone = 0
        self.slow = 0
        self.is_known = False

    def timed(self, block: Callable[[], list[float]]) -> list[float]:
        """The seconds of a block, timed again while the clock is low, at most MOST_TRIES times altogether."""
        for attempt in range(MOST_TRIES):
            seconds = block()
            share = self._share()
            self.is_known = share is not None
            if share is None or share >= LEAST_SHARE:
                return seconds
            self.redone += attempt < MOST_TRIES - 1
        self.slow += 1
        return seconds

    def note(self) -> str:
        """What the reader of a number should know of the clock; empty where all is well.

        >>> watch = ClockWatch(lambda: None)
        >>> _ = watch.timed(lambda: [0.002])
        >>> watch.note()
        "the device's clock is unknown (nvidia-ml-py, extra `cuda`, reads it)"
        """
        if not self.is_known:
            return "the device's clock is unknown (nvidia-ml-py, extra `cuda`, reads it)"
        if self.slow:
            return f"{self.slow} blocks were timed below {LEAST_SHARE:.0%} of the device's base clock"
        return ""


def nvml_share(uuid: str, nvml: Any = None) -> Share:
    """Reads a card's streaming multiprocessor clock over its default application clock, both in MHz, by NVML.

    `uuid` names the card whatever CUDA_VISIBLE_DEVICES says. Where NVML is missing or does not know one of the clocks
    (cards for games have no application clock) every answer is None. `nvml` is the module, pynvml unless a test gives
    its own. Source: NVML API reference, "Device Queries".
    """
    try:
        nvml = nvml or importlib.import_module("pynvml")
        nvml.nvmlInit()
        card = nvml.nvmlDeviceGetHandleByUUID(uuid)
        base = nvml.nvmlDeviceGetDefaultApplicationsClock(card, nvml.NVML_CLOCK_SM)
    except ImportError:  # before the next line, which asks the module
        return lambda: None
    except (nvml.NVMLError, AttributeError):
        return lambda: None

    def share() -> float | None:
        try:
            return float(nvml.nvmlDeviceGetClockInfo(card, nvml.NVML_CLOCK_SM)) / base if base else None
        except nvml.NVMLError:
            return None

    return share


def current_share(device: Any = None) -> Share:
    """The reader of the clock of a CUDA device (a torch.device), the current one unless it is named."""
    import torch  # not above: who only tells the time waits for nothing

    return nvml_share(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
