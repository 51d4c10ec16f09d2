"""Machines that train together, each a launch of `vivace train` of its own on the loopback, and ways to lose them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil

JOBS = """
import os, time, torch
from together import wide
from vivace.testing.tiny_training import Points, job


class Waiting(Points):
    "Points that machines take long enough to read that one of them may leave meanwhile."

    def __getitem__(self, index):
        time.sleep(float(os.environ.get("PAUSE", 0)))
        return super().__getitem__(index)


def slow(parameters):
    return torch.optim.SGD(parameters, 0.003, momentum=0.9)


work = job(model=wide, data=Waiting(), optimizer=slow, epochs={epochs}, name="waiting")
"""
PAUSE_SECONDS = "0.03"
"""How long the reading of a sample takes on a machine: a step of one process has sixteen."""


def write_job(folder: Path, epochs: int) -> str:
    """A file with a job of seven steps an epoch; its name as `vivace train` takes it."""
    (folder / "jobs.py").write_text(JOBS.replace("{epochs}", str(epochs)))
    return target(folder)


def target(folder: Path) -> str:
    """The job's name."""
    return f"{folder / 'jobs.py'}:work"


class Machine:
    """One launch, in a session of its own; `text` is what it has told so far."""

    def __init__(self, folder: Path, number: int, port: int, nodes: str, *options: str) -> None:
        started = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from vivace.cli import main; "
        meeting = ["--nodes", nodes, "--node-rank", str(number), "--rdzv-endpoint", f"127.0.0.1:{port}"]
        words = ["train", target(folder), *meeting, "--plan", "[]", "--out", str(folder / "run"), *options]
        self._log = folder / f"machine-{number}.log"
        setting = "import vivace.api.running.drive as worker; worker.CHECKPOINT_SECONDS = 1.0; "
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", f"{started}{setting}sys.exit(main())", *words],
                stdout=log, stderr=log, start_new_session=True, env={**os.environ, "PAUSE": PAUSE_SECONDS},
            )  # fmt: skip

    @property
    def text(self) -> str:
        """What it has told, in one line."""
        return " ".join(self._log.read_text(errors="replace").split())

    def wait_for(self, words: str, seconds: float = 250) -> None:
        """Wait until it has told these words. Raises AssertionError where it ends before, or takes too long."""
        until = time.monotonic() + seconds
        while words not in self.text:
            assert self.process.poll() is None and time.monotonic() < until, self.text[-3000:]
            time.sleep(0.1)

    def kill(self) -> None:
        """End all of its processes at once, as a machine ends that loses its power."""
        if self.process.poll() is not None:
            return
        whole = psutil.Process(self.process.pid)
        for one in [whole, *whole.children(recursive=True)]:
            try:
                os.kill(one.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()


def free_port() -> int:
    """A port that nobody uses at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
