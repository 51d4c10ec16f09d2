"""Isolated workers: what goes wrong in the child has a name in the parent, and nothing is left behind."""

from __future__ import annotations

import functools
import importlib.util
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch

from vivace.core.errors import ArtifactError, UnsupportedModel, UsageError, WorkerFailure
from vivace.core.measurement import Outcome
from vivace.measure import memory, process
from vivace.measure.process import Limits, Phase, Worker

Start = Callable[..., Worker]


@pytest.fixture(params=[True, False], ids=["a fresh interpreter", "a fork"])
def start(request: pytest.FixtureRequest) -> Start:
    """Workers are the same to their parent, however they started."""
    return functools.partial(Worker, fresh=request.param)


@pytest.fixture
def worker(tmp_path: Path, start: Start) -> Iterator[Worker]:
    with start(tmp_path / "w") as started:
        started.open("misbehaving:service", {})
        yield started


def test_open_returns_the_json_that_the_entry_returned(tmp_path: Path, start: Start) -> None:
    with start(tmp_path) as worker:
        answer = worker.open("misbehaving:echo", {"a": [1, 2.5, None, "é"]})
    assert answer == {"a": [1, 2.5, None, "é"]}


def test_open_returns_what_a_service_says_of_itself(tmp_path: Path, start: Start) -> None:
    with start(tmp_path) as worker:
        assert worker.open("misbehaving:service", {}) == {"ready": True}


def test_a_module_that_leaves_when_it_is_imported_ahead_leaves_the_worker_there(tmp_path: Path, start: Start) -> None:
    (tmp_path / "leaves.py").write_text("raise SystemExit(7)")
    paths = os.pathsep.join([str(tmp_path), *sys.path])
    with start(tmp_path / "w", environment={"PYTHONPATH": paths}, preload=["leaves"]) as worker:
        assert worker.open("misbehaving:echo", {"a": 1}) == {"a": 1}


def test_a_call_runs_in_another_process(worker: Worker) -> None:
    assert worker.call("pid") == worker.pid != os.getpid()


def test_a_segmentation_fault_is_a_crash_with_the_signal_and_the_last_words(worker: Worker) -> None:
    with pytest.raises(WorkerFailure, match=r"SIGSEGV in measure.*Fatal Python error") as caught:
        worker.call("crash")
    assert caught.value.outcome is Outcome.CRASHED
    assert not worker.alive


def test_a_child_that_leaves_in_a_call_is_a_crash_with_its_code(worker: Worker) -> None:
    with pytest.raises(WorkerFailure, match="exited with code 5"):
        worker.call("leave")


def test_others_are_asked_while_a_posted_service_opens(tmp_path: Path, start: Start) -> None:
    with start(tmp_path / "slow") as slow, start(tmp_path / "other") as other:
        slow.post("misbehaving:slow_service", {"seconds": 1.0})
        assert other.open("misbehaving:service", {}) == {"ready": True}
        assert slow.opened() == {"ready": True}
        assert slow.call("pid") == slow.pid
        with pytest.raises(WorkerFailure, match="nothing was posted"):
            slow.opened()


def test_a_posted_service_that_dies_is_told_when_it_is_waited_for(tmp_path: Path, start: Start) -> None:
    with start(tmp_path) as worker:
        worker.post("misbehaving:gone", {})
        with pytest.raises(WorkerFailure, match="gone"):
            worker.opened()


def test_a_hang_is_a_timeout_that_names_the_phase(tmp_path: Path, start: Start) -> None:
    with start(tmp_path, Limits(compile=0.5)) as worker:
        worker.open("misbehaving:service", {})
        with pytest.raises(WorkerFailure, match=r"compile took longer than 0\.5 seconds") as caught:
            worker.call("hang", phase=Phase.COMPILE)
    assert caught.value.outcome is Outcome.TIMEOUT
    assert not psutil.pid_exists(worker.pid)


def test_seconds_take_the_place_of_the_phase_deadline(worker: Worker) -> None:
    with pytest.raises(WorkerFailure, match=r"took longer than 0\.25 seconds"):
        worker.call("hang", seconds=0.25)


def test_a_child_that_ignores_termination_is_killed(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "TERM_SECONDS", 0.3)
    with pytest.raises(WorkerFailure, match="took longer"):
        worker.call("ignore_termination", seconds=0.5)
    assert not psutil.pid_exists(worker.pid)


def test_a_leak_is_out_of_memory(tmp_path: Path, start: Start) -> None:
    with start(tmp_path, Limits(memory_bytes=400_000_000)) as worker:
        worker.open("misbehaving:service", {})
        with pytest.raises(WorkerFailure, match=r"allowed are 0\.40 GB") as caught:
            worker.call("leak")
    assert caught.value.outcome is Outcome.OOM


def test_memory_of_grandchildren_counts_and_they_are_killed(tmp_path: Path, start: Start) -> None:
    with start(tmp_path, Limits(memory_bytes=400_000_000)) as worker:
        worker.open("misbehaving:service", {})
        with pytest.raises(WorkerFailure) as caught:
            worker.call("child_leaks", phase=Phase.CONVERT)
        members = memory.session_members(worker.pid)
    assert caught.value.outcome is Outcome.OOM
    assert members == []


def test_two_hundred_megabytes_of_errors_neither_block_nor_fill_the_disk(tmp_path: Path, start: Start) -> None:
    with start(tmp_path, Limits(log_bytes=1_000_000)) as worker:
        worker.open("misbehaving:service", {})
        assert worker.call("shout", {"megabytes": 200}) == "done"
        assert worker.log_tail().endswith("the end\n")
    log = (tmp_path / "worker.log").read_bytes()
    assert len(log) < 1_100_000
    assert b"bytes left out" in log
    assert log.endswith(b"the end\n")


def test_what_a_child_prints_goes_to_the_log_and_never_into_an_answer(worker: Worker) -> None:
    assert worker.call("speak") == "quiet answer"
    assert "hello from the child\nand from below" in worker.log_tail()


def test_a_large_answer_arrives_whole(worker: Worker) -> None:
    assert len(worker.call("large", {"size": 5_000_000})) == 5_000_000


def test_an_answer_that_is_not_json_is_an_error_and_the_worker_lives_on(worker: Worker) -> None:
    with pytest.raises(WorkerFailure, match="not JSON serializable"):
        worker.call("unspeakable")
    assert worker.call("count") == 1


def test_a_service_that_hangs_at_exit_is_killed(tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "CLOSE_SECONDS", 0.3)
    with start(tmp_path) as worker:
        worker.open("misbehaving:hangs_at_exit", {})
    assert not psutil.pid_exists(worker.pid)


def test_a_child_dies_with_its_parent(tmp_path: Path, start: Start) -> None:
    with start(tmp_path / "outer") as outer:
        outer.open("misbehaving:starts", {})
        inner = psutil.Process(outer.call("start", {"folder": str(tmp_path / "inner")}))
        os.kill(outer.pid, signal.SIGKILL)
        gone, _ = psutil.wait_procs([inner], timeout=10)
    assert gone == [inner]


def test_an_interrupt_in_the_parent_leaves_no_child(tmp_path: Path, start: Start) -> None:
    worker = start(tmp_path)
    timer = threading.Timer(1.0, signal.raise_signal, [signal.SIGINT])
    with pytest.raises(KeyboardInterrupt), worker:
        worker.open("misbehaving:service", {})
        timer.start()
        worker.call("hang")
    assert not psutil.pid_exists(worker.pid)


def test_a_forgotten_worker_is_ended(tmp_path: Path, start: Start) -> None:
    worker = start(tmp_path)
    child = psutil.Process(worker.pid)
    worker._finalizer()
    assert not child.is_running()
    worker.close()


def test_a_paused_worker_is_stopped_and_a_call_wakes_it(worker: Worker) -> None:
    worker.pause()
    stopped = psutil.Process(worker.pid).status()
    assert stopped == psutil.STATUS_STOPPED
    assert worker.call("count") == 1


def test_a_paused_worker_can_be_closed(worker: Worker) -> None:
    worker.pause()
    worker.close()
    assert not psutil.pid_exists(worker.pid)


def test_a_worker_that_ended_says_so(worker: Worker) -> None:
    worker.close()
    with pytest.raises(WorkerFailure, match="has ended; start another"):
        worker.call("count")


@pytest.mark.parametrize(
    ("error", "phase", "outcome", "reason"),
    [
        ("not applicable", Phase.CONVERT, Outcome.UNSUPPORTED, "there is no convolution"),
        ("failure", Phase.VERIFY, Outcome.NONFINITE, "NaN in output 0"),
        ("memory", Phase.CONVERT, Outcome.OOM, "MemoryError: too much"),
        ("torch memory", Phase.MEASURE, Outcome.OOM, "can't allocate memory"),
        ("disk", Phase.CONVERT, Outcome.DISK_FULL, "No space left on device"),
        ("any", Phase.CONVERT, Outcome.CONVERT_FAILED, "KeyError: 'weights'"),
        ("any", Phase.COMPILE, Outcome.CONVERT_FAILED, "KeyError: 'weights'"),
        ("any", Phase.LOAD, Outcome.CRASHED, "KeyError: 'weights'"),
        ("exit", Phase.LOAD, Outcome.CRASHED, "SystemExit: 7"),
    ],
)
def test_an_error_in_the_child_becomes_its_outcome(
    tmp_path: Path, start: Start, error: str, phase: Phase, outcome: Outcome, reason: str
) -> None:
    with start(tmp_path) as worker, pytest.raises(WorkerFailure, match=reason) as caught:
        worker.open("misbehaving:raises", {"error": error}, phase=phase)
    assert caught.value.outcome is outcome


@pytest.mark.parametrize(("error", "kind"), [("usage", UsageError), ("artifact", ArtifactError)])
def test_an_error_about_what_the_user_gave_is_raised_as_itself(
    tmp_path: Path, start: Start, error: str, kind: type
) -> None:
    with start(tmp_path) as worker, pytest.raises(kind, match=r"received 3|damaged") as caught:
        worker.open("misbehaving:raises", {"error": error})
    assert type(caught.value) is kind


def test_the_traceback_of_an_error_is_in_the_log(tmp_path: Path, start: Start) -> None:
    with start(tmp_path) as worker:
        with pytest.raises(WorkerFailure):
            worker.open("misbehaving:raises", {"error": "any"})
        assert "in raises" in worker.log_tail()


def test_an_entry_that_does_not_exist_is_a_crash_with_its_name(tmp_path: Path, start: Start) -> None:
    with start(tmp_path) as worker, pytest.raises(WorkerFailure, match="no_such_module"):
        worker.open("no_such_module:entry", {})


def test_the_environment_is_the_users_with_what_was_added(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIVACE_TEST", "user")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with start(tmp_path, environment={"TORCHINDUCTOR_CACHE_DIR": "/x"}) as worker:
        names = ("VIVACE_TEST", "TORCHINDUCTOR_CACHE_DIR", "KERAS_BACKEND", "OMP_NUM_THREADS")
        found = [worker.open("misbehaving:variable", {"name": name}) for name in names]
    assert found == ["user", "/x", "torch", None]


def test_a_class_of_main_goes_by_value(tmp_path: Path, start: Start) -> None:
    kind = type("FromNotebook", (torch.nn.Linear,), {"__module__": "__main__"})
    with start(tmp_path) as worker:
        answer = worker.open("misbehaving:about", {}, kind(2, 2))
    assert answer["type"] == "FromNotebook"


def test_a_class_of_a_file_that_was_loaded_from_a_path_goes_by_value(tmp_path: Path, start: Start) -> None:
    file = tmp_path / "elsewhere" / "their_model.py"
    file.parent.mkdir()
    file.write_text("import torch\nclass Net(torch.nn.Linear):\n    pass\n")
    module = _load(file)
    try:
        with start(tmp_path) as worker:
            answer = worker.open("misbehaving:about", {}, module.Net(2, 2))
    finally:
        del sys.modules["their_model"]
    assert answer == {"type": "Net", "module": "their_model"}


def _load(file: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


def test_tied_tensors_stay_tied_and_keep_their_values(tmp_path: Path, start: Start) -> None:
    tensor = torch.arange(6.0).reshape(2, 3)
    with start(tmp_path) as worker:
        answer = worker.open("misbehaving:tied", {}, [tensor, tensor.view(3, 2).view(2, 3)])
    assert answer == {"shared": True, "values": tensor.tolist()}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8, torch.bool, torch.float64])
def test_tensors_of_every_dtype_arrive(tmp_path: Path, start: Start, dtype: torch.dtype) -> None:
    tensor = torch.tensor([[0, 1], [1, 0]]).to(dtype)
    with start(tmp_path) as worker:
        answer = worker.open("misbehaving:tied", {}, [tensor, tensor])
    assert answer["values"] == tensor.tolist()


def test_a_model_that_cannot_be_pickled_says_what_to_do(tmp_path: Path, start: Start) -> None:
    model = torch.nn.Linear(2, 2)
    model.lock = threading.Lock()  # type: ignore[assignment]
    with start(tmp_path) as worker, pytest.raises(UnsupportedModel, match=r"lock.*export it to a \.pt2"):
        worker.open("misbehaving:about", {}, model)
    assert not worker.alive


def test_the_parent_uses_no_processor_while_it_waits(worker: Worker) -> None:
    before = sum(os.times()[:2])
    with pytest.raises(WorkerFailure):
        worker.call("hang", seconds=2.0)
    assert sum(os.times()[:2]) - before < 0.1
