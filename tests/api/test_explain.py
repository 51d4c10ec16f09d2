"""What is said after the verdict: ceilings that were measured or why not; nothing is made up."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from vivace.api import explain as explaining
from vivace.api.request import machine_of
from vivace.core.cost import Cost
from vivace.core.facts import Fact
from vivace.core.machine import Ceiling, Machine
from vivace.devices import ceiling_store
from vivace.devices.machine import detect

MACHINE = Machine("p", "x86_64", (), 2, 2, 1 << 30, "Linux")
COST = Cost(flops=1e9, weight_bytes=0, activation_bytes=0, operators=1)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_ceilings_that_doctor_kept_are_used(tmp_path: Path) -> None:
    kept = (Ceiling(1, {"f32": 100.0}, 10.0),)
    ceiling_store.keep(dataclasses.replace(MACHINE, ceilings=kept))

    assert explaining.ceilings_for([COST], [1.0], MACHINE, tmp_path / "log", 0.0) == (
        kept,
        "MEASURED by vivace doctor on this machine",
    )


def test_kept_ceilings_that_a_call_exceeded_are_said_to_be_of_a_busy_machine(tmp_path: Path) -> None:
    kept = (Ceiling(1, {"f32": 100.0}, 10.0),)  # which allow 10 ms for 10^9 operations
    ceiling_store.keep(dataclasses.replace(MACHINE, ceilings=kept))

    _, told = explaining.ceilings_for([COST], [0.005], MACHINE, tmp_path / "log", 0.0)

    assert told == "MEASURED by vivace doctor on this machine, while it was busy: a call was faster than they allow"


@pytest.mark.slow
def test_kept_ceilings_that_a_call_exceeded_are_measured_once_more(tmp_path: Path) -> None:
    kept = (Ceiling(1, {"f32": 1e-3, "int8": 7.0}, 10.0),)
    ceiling_store.keep(dataclasses.replace(MACHINE, ceilings=kept))

    (ceiling,), told = explaining.ceilings_for([COST], [0.005], MACHINE, tmp_path / "log", 60.0)

    assert ceiling.gflops["f32"] > 1 and ceiling.gflops["int8"] == 7.0
    assert told == "MEASURED after the verdict, in a process of its own"


def test_a_search_ranks_by_what_doctor_kept() -> None:
    kept = (Ceiling(1, {"f32": 123.0}, 10.0),)
    ceiling_store.keep(dataclasses.replace(detect(), ceilings=kept))

    assert machine_of("cpu").ceilings == kept


def test_without_time_or_kept_ceilings_nothing_is_made_up(tmp_path: Path) -> None:
    assert explaining.ceilings_for([COST], [1.0], MACHINE, tmp_path / "log", 1.0) == ((), explaining.NO_TIME)


@pytest.mark.slow
def test_ceilings_are_measured_in_a_worker_at_the_precisions_and_threads_that_are_asked(tmp_path: Path) -> None:
    costs = [COST, COST.replace(precision="bf16")]

    (ceiling,), told = explaining.ceilings_for(costs, [1.0, 1.0], MACHINE, tmp_path / "log", 60.0)

    fast = {"bf16"} if Fact.BF16_INSTRUCTIONS in detect().facts() else set()
    assert ceiling.threads == 1 and {"f32"} | fast <= set(ceiling.gflops) <= {"f32", "bf16"}
    assert all(rate >= ceiling.gflops["f32"] > 1 for rate in ceiling.gflops.values())
    assert told.startswith("MEASURED")
