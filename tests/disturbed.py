"""Whether this machine can show what a timed test asks for."""

from __future__ import annotations

import pytest

MOST_NOISE = 0.2
"""Of the original beside itself: no verdict can be asked for where that is more than a plan may gain."""


def skip_if_disturbed(noise_floor: float) -> None:
    """Skip visibly where the original differs from itself by more."""
    if noise_floor > MOST_NOISE:
        pytest.skip(f"this machine is disturbed: the original differs from itself by {noise_floor:.0%}")
