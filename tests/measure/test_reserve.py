"""Interpreters that start ahead: taken by who asks for exactly them, asleep until then, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from vivace.measure.forking import reserve
from vivace.measure.forking.child import Executed
from vivace.measure.forking.reserve import Reserve, Wanted
from vivace.measure.process import Worker

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="interpreters start ahead on Linux only")

PLAIN = Wanted({}, ("fractions",))
LOADED = "__import__('sys').modules.get('fractions') is not None"


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Until it holds; fails where it never does."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def filled(store: Reserve, wanted: Wanted = PLAIN, count: int = 1) -> None:
    """Let it start so many."""
    with store.going():
        wait_for(lambda: store.ready(wanted) == count)


def children() -> list[psutil.Process]:
    """Interpreters of workers that this process has started."""
    found = []
    for child in psutil.Process().children():
        if "vivace.measure.worker" in child.cmdline():
            found.append(child)
    return found


def ask(worker: Worker, what: str) -> object:
    """What a worker finds by itself."""
    return worker.open("misbehaving:evaluated", {"expression": what})


def test_a_worker_takes_over_what_was_started_for_it(tmp_path: Path) -> None:
    with reserve.started([PLAIN]) as store:
        filled(store)
        (sleeping,) = children()

        with Worker(tmp_path / "w", preload=PLAIN.preload) as worker:
            assert worker.pid == sleeping.pid
            assert isinstance(worker._child, Executed)
            assert ask(worker, LOADED) is True
            assert ask(worker, "print('said') or 1") == 1
            assert "said" in worker.log_tail()
            assert store.ready(PLAIN) == 0
        assert not sleeping.is_running()


def test_who_asks_for_another_interpreter_gets_a_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with reserve.started([PLAIN]) as store:
        filled(store)
        (sleeping,) = children()

        with Worker(tmp_path / "a", preload=("decimal",)) as other_modules:
            assert other_modules.pid != sleeping.pid
        with Worker(tmp_path / "b", environment={"VIVACE_TEST": "1"}, preload=PLAIN.preload) as other_variables:
            assert other_variables.pid != sleeping.pid
            assert ask(other_variables, "__import__('os').environ['VIVACE_TEST']") == "1"
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            with Worker(tmp_path / "c", preload=PLAIN.preload) as other_folder:
                assert other_folder.pid != sleeping.pid
                assert ask(other_folder, "__import__('os').getcwd()") == str(tmp_path)
        assert store.ready(PLAIN) == 1


def test_a_forked_worker_leaves_the_reserve_alone(tmp_path: Path) -> None:
    with reserve.started([PLAIN]) as store:
        filled(store)
        with Worker(tmp_path / "w", preload=PLAIN.preload, fresh=False):
            assert store.ready(PLAIN) == 1


def test_nothing_starts_or_runs_but_while_it_may(tmp_path: Path) -> None:
    slow = Wanted({"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}, ("takes_long",))
    (tmp_path / "takes_long.py").write_text("import time\nstart = time.time()\nwhile time.time() < start + 3: pass\n")
    with reserve.started([slow]) as store:
        time.sleep(0.2)
        assert not children()

        with store.going():
            wait_for(lambda: bool(children()))
        (importing,) = children()

        wait_for(lambda: importing.status() == psutil.STATUS_STOPPED)
        spent = importing.cpu_times().user
        time.sleep(0.5)
        assert importing.cpu_times().user == spent
        assert store.ready(slow) == 0
        filled(store, slow)
        wait_for(lambda: importing.status() == psutil.STATUS_STOPPED)


def test_they_end_with_the_reserve() -> None:
    with reserve.started([PLAIN, PLAIN, Wanted({}, ("torch",))]) as store:
        filled(store, count=2)
        assert len(children()) in (2, 3)
    assert not children()
    assert reserve.ready(PLAIN) == 0


def test_they_end_with_a_parent_that_is_killed() -> None:
    script = textwrap.dedent("""
        import time
        from vivace.measure.forking.reserve import Wanted, started
        wanted = Wanted({}, ("fractions",))
        with started([wanted, Wanted({}, ("torch",))]) as store:
            with store.going():
                while not store.ready(wanted):
                    time.sleep(0.01)
            print("ready", flush=True)
            time.sleep(60)
    """)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        found = psutil.Process(parent.pid).children()
        assert found
        parent.send_signal(signal.SIGKILL)
    gone, alive = psutil.wait_procs(found, timeout=10)
    assert len(gone) == len(found)
    assert not alive


def test_they_take_no_more_than_a_share_of_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reserve, "MEMORY_SHARE", 0.0)
    with reserve.started([PLAIN] * 3) as store:
        filled(store)
        with store.going():
            time.sleep(0.5)
        assert store.ready(PLAIN) == 1


def test_one_that_dies_while_it_imports_is_not_offered(tmp_path: Path) -> None:
    fatal = Wanted({"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}, ("fatal_when_imported",))
    (tmp_path / "fatal_when_imported.py").write_text("import os\nos._exit(1)\n")
    with reserve.started([fatal]) as store, store.going():
        wait_for(lambda: store._starting is not None)
        wait_for(lambda: store._starting is None)
        assert store.ready(fatal) == 0
    assert not children()


def test_one_that_was_killed_as_it_slept_is_not_offered(tmp_path: Path) -> None:
    with reserve.started([PLAIN]) as store:
        filled(store)
        (sleeping,) = children()
        sleeping.kill()
        wait_for(lambda: sleeping.status() == psutil.STATUS_ZOMBIE)
        with Worker(tmp_path / "w", preload=PLAIN.preload) as worker:
            assert worker.pid != sleeping.pid
            assert ask(worker, "1 + 1") == 2
