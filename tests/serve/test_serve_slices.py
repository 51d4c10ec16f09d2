"""Scheduler slices: a thread that asks for a short one has it, by what the kernel says itself, or is told why not."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import psutil
import pytest
from served import Server

from vivace.serve.slices import LONGEST_SECONDS, SHORTEST_SECONDS, ask_for_slice, shortest_slice


def kernels_slice(process: int | str) -> float | None:
    """Seconds of the slice of a process's main thread, where the kernel tells it (/proc/PID/sched)."""
    with contextlib.suppress(OSError):
        found = re.search(r"^se\.slice\s*:\s*(\d+)", Path(f"/proc/{process}/sched").read_text(), re.MULTILINE)
        return int(found[1]) * 1e-9 if found else None
    return None


@pytest.fixture
def _slices_are_given_and_told():
    with shortest_slice() as why_not:
        told = kernels_slice("thread-self")
    if why_not or told is None:
        pytest.skip(why_not or "this kernel does not tell slices in /proc")


@pytest.mark.usefixtures("_slices_are_given_and_told")
def test_a_thread_has_the_shortest_slice_within_the_block_and_its_own_again_after_it():
    before = kernels_slice("thread-self")

    with shortest_slice() as why_not:
        within = kernels_slice("thread-self")

    assert (why_not, within) == ("", SHORTEST_SECONDS)
    assert kernels_slice("thread-self") == before != SHORTEST_SECONDS


@pytest.mark.usefixtures("_slices_are_given_and_told")
def test_the_front_of_a_server_has_the_shortest_slice_and_its_workers_do_not(server: Server):
    workers = psutil.Process(server.told["pid"]).children(recursive=True)

    assert kernels_slice(server.told["pid"]) == SHORTEST_SECONDS
    assert workers
    assert SHORTEST_SECONDS not in [kernels_slice(worker.pid) for worker in workers]


def test_a_machine_whose_slices_cannot_be_asked_for_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("platform.machine", lambda: "riscv64")

    with shortest_slice() as why_not:
        assert why_not == "slices are asked for on Linux on x86_64 and aarch64 only"


@pytest.mark.parametrize("seconds", [-SHORTEST_SECONDS, SHORTEST_SECONDS / 2, 2 * LONGEST_SECONDS])
def test_a_slice_that_linux_gives_to_nobody_is_refused(seconds: float):
    with pytest.raises(ValueError, match=r"allowed are 0 and 0.0001 to 0.1 s"):
        ask_for_slice(seconds)
