"""Forked workers: they start as the parent is now, share no random state, and are never more than the parent allows."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from vivace.core.errors import WorkerFailure
from vivace.core.measurement import Outcome
from vivace.measure.child_environment import child_environment
from vivace.measure.forking import client
from vivace.measure.forking.child import Executed
from vivace.measure.forking.client import Forked, ForkServer
from vivace.measure.process import Worker

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="workers are forked on Linux only")


@pytest.fixture
def server() -> Iterator[ForkServer]:
    """The server that workers of this process are forked from."""
    client.prepare()
    found = client._server_for(child_environment({}))
    assert found is not None
    yield found


def ask(worker: Worker, what: str) -> object:
    """What a worker finds by itself."""
    return worker.open("misbehaving:evaluated", {"expression": what})


def test_a_fork_has_the_folder_the_variables_and_the_modules_of_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only_here.py").write_text("WORD = 'found'")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("VIVACE_TEST", "set just now")

    with Worker(tmp_path / "w", fresh=False) as worker:
        assert isinstance(worker._child, Forked)
        assert ask(worker, "__import__('os').getcwd()") == str(tmp_path)
        assert ask(worker, "__import__('os').environ['VIVACE_TEST']") == "set just now"
        assert ask(worker, "__import__('only_here').WORD") == "found"


def test_a_fork_keeps_to_the_cores_of_its_parent(tmp_path: Path) -> None:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        with Worker(tmp_path / "w", fresh=False) as worker:
            assert ask(worker, "sorted(__import__('os').sched_getaffinity(0))") == [min(cores)]
    finally:
        os.sched_setaffinity(0, cores)


@pytest.mark.parametrize("draw", ["__import__('random').random()", "__import__('numpy').random.rand()"])
def test_two_forks_draw_different_numbers(tmp_path: Path, draw: str) -> None:
    with Worker(tmp_path / "a", fresh=False) as one, Worker(tmp_path / "b", fresh=False) as other:
        assert ask(one, draw) != ask(other, draw)


def test_the_server_has_one_thread_and_no_device(server: ForkServer, tmp_path: Path) -> None:
    with Worker(tmp_path / "w", fresh=False) as worker:
        worker.ready()
        assert psutil.Process(server._server.pid).num_threads() == 1
        assert ask(worker, "__import__('torch').cuda.is_initialized()") is False


def test_a_variable_that_a_library_reads_when_it_is_loaded_is_never_set_too_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    client.close_all()
    client.prepare()

    with (
        Worker(tmp_path / "a", environment={"OMP_NUM_THREADS": "1"}, fresh=False) as second,
        Worker(tmp_path / "b", environment={"MALLOC_ARENA_MAX": "1"}, fresh=False) as third,
    ):
        assert isinstance(second._child, Forked)
        assert ask(second, "__import__('torch').get_num_threads()") == 1
        assert isinstance(third._child, Executed)  # a third server would be one too many


def test_a_server_that_was_killed_takes_its_workers_along_and_another_one_starts(
    server: ForkServer, tmp_path: Path
) -> None:
    with Worker(tmp_path / "a", fresh=False) as worker:
        worker.ready()
        lost = psutil.Process(worker.pid)
        os.kill(server._server.pid, signal.SIGKILL)
        psutil.wait_procs([lost], timeout=10)
        assert not worker.alive
        with pytest.raises(WorkerFailure, match="along with the process that it was forked from") as caught:
            ask(worker, "1 + 1")
    assert caught.value.outcome is Outcome.INFRA_ERROR
    server._server.wait()

    with Worker(tmp_path / "b", fresh=False) as again:
        assert ask(again, "1 + 1") == 2


def test_a_server_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    with Worker(tmp_path / "outer") as outer:
        inner = outer.open("misbehaving:forks", {"folder": str(tmp_path / "inner")})
        found = [psutil.Process(pid) for pid in inner["pids"]]
        os.kill(outer.pid, signal.SIGKILL)
        _, left = psutil.wait_procs(found, timeout=15)
    assert left == []


def test_a_fork_says_what_its_imports_would_have_taken(tmp_path: Path) -> None:
    with Worker(tmp_path / "a", fresh=False) as forked, Worker(tmp_path / "b") as fresh:
        assert 0.1 < forked.spared_seconds < 60
        assert 0.1 < forked.reader_seconds < 60
        assert fresh.spared_seconds == fresh.reader_seconds == 0


def test_what_is_shared_is_imported_before_workers_are_forked(server: ForkServer, tmp_path: Path) -> None:
    before = Worker(tmp_path / "a", fresh=False)
    client.share(["wsgiref.util"])

    with (
        before,
        Worker(tmp_path / "b", preload=["wsgiref.util"], fresh=False) as after,
        Worker(tmp_path / "c", fresh=False) as other,
    ):
        assert not ask(before, "'wsgiref.util' in __import__('sys').modules")
        assert ask(other, "'wsgiref.util' in __import__('sys').modules")
        assert after.shared_seconds > 0
        assert before.shared_seconds == other.shared_seconds == 0  # which did not ask for it


def test_a_package_that_starts_threads_is_not_shared_and_workers_of_before_live_on(
    server: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.close_all()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "starts_a_thread.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
    )
    with Worker(tmp_path / "a", fresh=False) as before:
        client.share(["starts_a_thread"])

        with Worker(tmp_path / "b", fresh=False) as after:
            assert isinstance(after._child, Forked)
            assert not ask(after, "'starts_a_thread' in __import__('sys').modules")
            assert ask(after, "__import__('threading').active_count()") == 1
        assert ask(before, "1 + 1") == 2
    client.close_all()


def test_what_reads_exported_programs_is_not_imported_by_an_arm(tmp_path: Path) -> None:
    with Worker(tmp_path / "b", preload=client.ARM) as fresh:
        assert not ask(fresh, f"any(__import__('sys').modules.get(name) for name in {client.READER!r})")


def test_where_nothing_can_be_forked_an_interpreter_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client.close_all()
    monkeypatch.setattr(client, "MOST_SERVERS", 0)

    with Worker(tmp_path / "w", fresh=False) as worker:
        assert isinstance(worker._child, Executed)
        assert ask(worker, "1 + 1") == 2
