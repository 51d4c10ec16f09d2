"""Programs run by the process's own OpenMP threads, by their own where these are too few, and by one."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vivace.codegen import team
from vivace.codegen.build import flags_for, library
from vivace.codegen.team import enlist
from vivace.codegen.threads import POOL, head
from vivace.codegen.tiles import Vector
from vivace.devices import machine

HERE = machine.detect()
pytestmark = pytest.mark.skipif(not HERE.cxx_compiler, reason="generated code needs a C++ compiler: install g++")
WORK = """
static long *times, *who;
static void work(int t) {
  times[t]++; barrier();
  if (t == 0) for (long i = 0; i < THREADS; i++) who[i] = (long)pthread_self();
  barrier();
  who[t] = (long)pthread_self();
  barrier();
}
"""
ENTRY = """
extern "C" void run(long *times_, long *who_) { times = times_; who = who_; all_work(); }
"""
SHORT = """
import sys
sys.path.insert(0, {folder!r})
from test_team import calls
taken, who = calls(True, 3)
assert taken == [3, 3, 3], taken
print("enough")
"""

FORKED = """
import os, sys
sys.path.insert(0, {folder!r})
import torch
from test_team import opened, worked
built = opened({is_given}, 2)
assert worked(built, 2) == 2
child = os.fork()
if child == 0:
    assert worked(built, 2) == 2 and worked(built, 2) == 2
    built.end()
    print("the child", flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert worked(built, 2) == 2
print("the parent")
"""


def opened(is_given: bool, threads: int) -> ctypes.CDLL:
    """A program for so many threads, run by those of the process where it has some and `is_given` them."""
    flags = flags_for(HERE.architecture, 4)
    built = library(head(Vector(4, 16), threads) + WORK + POOL + ENTRY, str(HERE.cxx_compiler), flags)
    assert built.begin() == 0
    if is_given and not enlist(built):
        pytest.skip("this process has no OpenMP library of its own")
    return built


def worked(built: ctypes.CDLL, threads: int) -> int:
    """How many different threads worked in a call, each once."""
    times, who = torch.zeros(threads, dtype=torch.int64), torch.zeros(threads, dtype=torch.int64)
    built.run(ctypes.c_void_p(times.data_ptr()), ctypes.c_void_p(who.data_ptr()))
    assert times.tolist() == [1] * threads
    return len(set(who.tolist()))


def calls(is_given: bool, threads: int, count: int = 3) -> tuple[list[int], list[int]]:
    """How often each thread of a program has worked after so many calls, and which threads they were."""
    built = opened(is_given, threads)
    times, who = torch.zeros(threads, dtype=torch.int64), torch.zeros(threads, dtype=torch.int64)
    for _ in range(count):
        built.run(ctypes.c_void_p(times.data_ptr()), ctypes.c_void_p(who.data_ptr()))
    built.end()
    return times.tolist(), who.tolist()


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("is_given", [False, True], ids=["its own", "the process's"])
def test_every_thread_works_once_in_a_call(threads: int, is_given: bool) -> None:
    times, who = calls(is_given, threads)

    assert times == [3] * threads
    assert len(set(who)) == threads


def test_threads_of_the_process_are_the_same_for_all_programs() -> None:
    _, own = calls(False, 2)
    _, first = calls(True, 2)
    _, second = calls(True, 2)

    assert first == second  # the caller, and the one that PyTorch's operators are run by
    assert first[0] == own[0] and first[1] != own[1]


def test_where_the_process_has_too_few_the_program_has_its_own() -> None:
    """With a limit of two, OpenMP gives a region of three only two: a barrier for three would wait for ever."""
    done = subprocess.run(
        [sys.executable, "-c", SHORT.format(folder=str(Path(__file__).parent))],
        env=os.environ | {"OMP_THREAD_LIMIT": "2"}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.stdout.strip() == "enough", done.stderr


@pytest.mark.parametrize("is_given", [False, True], ids=["its own", "the process's"])
def test_a_child_that_was_forked_after_a_call_has_threads_of_its_own(is_given: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKED.format(folder=str(Path(__file__).parent), is_given=is_given)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.stdout.splitlines() == ["the child", "the parent"], done.stderr


def test_a_child_of_multiprocessing_asks_for_no_threads_of_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(team.multiprocessing, "parent_process", lambda: "a parent")

    assert not enlist(ctypes.CDLL(None))

    monkeypatch.setattr(team.sys, "orig_argv", ["python", team.SPAWNED])
    assert not team._is_forked()


def test_a_process_without_openmp_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(team, "NAMES", ("no_such_function",))

    assert not enlist(ctypes.CDLL(None))
