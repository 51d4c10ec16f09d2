"""What a preset stands for, and that what is said explicitly wins."""

from __future__ import annotations

import pytest
import torch

import vivace as vv
from vivace.api.request import options_of
from vivace.search.options import Options


def options(**given: object) -> Options:
    work = vv.Workload(torch.nn.Linear(2, 2), inputs=(torch.zeros(1, 2),))
    return options_of(work, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("preset", "seconds", "finalists", "restarts"),
    [("quick", 60.0, 2, 3), ("default", 300.0, 3, 3), ("thorough", 1800.0, 5, 5)],
)
def test_a_preset_sets_the_time_and_how_much_is_confirmed(
    preset: str, seconds: float, finalists: int, restarts: int
) -> None:
    found = options(preset=preset)

    assert (found.seconds, found.finalists, found.restarts) == (seconds, finalists, restarts)


def test_without_anything_said_the_default_holds() -> None:
    assert options().seconds == options(preset="default").seconds


def test_an_explicit_time_wins_over_the_presets() -> None:
    found = options(preset="thorough", time="90s")

    assert (found.seconds, found.restarts) == (90.0, 5)


def test_the_calls_are_those_that_were_given() -> None:
    assert (options().calls, options(calls=1).calls) == (None, 1)
