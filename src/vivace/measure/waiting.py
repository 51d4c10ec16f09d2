"""Sleeping until a process ends, by its descriptor where the kernel gives one."""

from __future__ import annotations

import os
import select


def exit_descriptor(pid: int) -> int | None:
    """A descriptor that becomes readable when the process ends; None where the kernel or a sandbox has none."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def sleep_until_readable(descriptor: int | None, seconds: float) -> None:
    """Sleep until the descriptor is readable, at most this long; only sleep when there is none."""
    poller = select.poll()
    if descriptor is not None:
        poller.register(descriptor, select.POLLIN)
    poller.poll(1000 * seconds)
