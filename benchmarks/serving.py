"""The benchmark of serving: answers a second and latency of our server, beside LitServe with the same artifact.

python benchmarks/serving.py                       # some six minutes; writes benchmarks/results/serving.json
python benchmarks/serving.py --quick               # seconds, to see that it works
python benchmarks/serving.py --soak 100000         # good and bad clients, killed workers; every answer checked
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import importlib.util
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import psutil

import litserve_messages
import vivace as vv
from inference import machine, version
from prepare import HERE, WORK
from serving_models import MODELS
from soak import Soak
from vivace.artifact.manifest import GOLDEN_CALLS, GOLDEN_OUTPUTS
from vivace.core.measurement import Interval
from vivace.data import samples
from vivace.measure import environment
from vivace.serve.load.compare import Served, alternate, joined, tail
from vivace.serve.load.drive import Bounds, Slice, closed_loop, open_loop
from vivace.serve.load.metadata import read_metadata
from vivace.serve.load.requests import Target, messages, of_artifact
from vivace.serve.workers.crew import threads_environment

RESULTS = HERE / "results"
COMMAND = "import sys; from vivace.cli import main; sys.exit(main())"
LEAST_PER_SECOND = 2000.0
MOST_TIMES_UNLOADED = 3.0
START_SECONDS = 120.0
ECHO_BYTES = 256
SOAK_SAMPLES = 20
"""Of the memory held, spread over a soak."""


@dataclasses.dataclass(frozen=True)
class Effort:
    """What is spent: on optimizing, on one slice, in how many blocks of four, on each latency."""

    optimize: str = "2m"
    slice_seconds: float = 2.5
    blocks: int = 6
    latency_seconds: float = 15.0
    connections: int = 16


QUICK = Effort("30s", 0.5, 1, 2.0)


def main() -> None:
    options = parse()
    effort = dataclasses.replace(QUICK if options.quick else Effort(), connections=options.connections)
    found: dict[str, Any] = {}
    for name in options.only:
        artifact = made(name, effort, options.again)
        found[name] = soaked(artifact, options.soak) if options.soak else raced(name, artifact, effort)
        print(json.dumps({name: found[name]}, indent=1), flush=True)
    kind = "serving-soak" if options.soak else "serving"
    folder = WORK / "quick" if options.quick else RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    document = {
        "date": f"{datetime.date.today()}", "machine": machine(), "litserve": version("litserve"),
        "effort": dataclasses.asdict(effort), "environment": environment.snapshot(), "workloads": found,
    }  # fmt: skip
    (folder / f"{kind}.json").write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(MODELS), default=list(MODELS), help="some models only")
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes, to see that it works")
    parser.add_argument("--again", action="store_true", help="optimize again what is already there")
    parser.add_argument("--connections", type=int, default=16, help="clients of the closed loop")
    parser.add_argument("--soak", type=int, default=0, metavar="REQUESTS", help="so many requests of all kinds instead")
    return parser.parse_args()


def made(name: str, effort: Effort, again: bool) -> Path:
    """The accelerated artifact of a model, made once."""
    out = WORK / "serving" / f"{name}-{effort.optimize}"
    if again or not out.is_dir():
        print(f"{name}: vivace.optimize, {effort.optimize}", flush=True)
        vv.optimize(MODELS[name](), vv.Budget(drop=0.01), "latency", effort.optimize, out)
    return out


def raced(name: str, artifact: Path, effort: Effort) -> dict[str, Any]:
    """Our server and LitServe's by turns; then what each one's lone client sees, and clients at half of the limit."""
    with contextlib.ExitStack() as stack:
        ours, told = stack.enter_context(our_server(artifact))
        theirs = stack.enter_context(litserve_server(artifact, told["batching"]["most_samples"]))
        record: dict[str, Any] = {"plan": told["plan"], "batching": told["batching"]}
        sides = {"vivace": ours, "litserve": theirs}
        present = {key: side for key, side in sides.items() if side is not None}
        full = {key: full_slice(side, effort) for key, side in present.items()}  # warm
        if theirs is not None:
            drives = [lambda side=side: full_slice(side, effort) for side in (theirs, ours)]
            found: Served = alternate(*drives, effort.blocks)
            full = {"litserve": joined(found.original), "vivace": joined(found.other)}
            record["vivace_over_litserve"] = values(found.speedup)
        else:
            full["vivace"] = joined([full_slice(ours, effort) for _ in range(4 * effort.blocks)])
            record["litserve"] = "not installed: pip install -r benchmarks/requirements.txt"
        for key, side in present.items():
            record[key] = latencies(side, full[key], effort)
        with echo_server(1 / full["vivace"].per_second, ours.target.messages) as echo:
            record["echo"] = latencies(echo, full_slice(echo, effort), effort)
    return record | {"reached": reached(record)}


@dataclasses.dataclass(frozen=True)
class Side:
    """A server that is driven: the target, and its process group, which is stopped while the other one is driven."""

    target: Target
    group: int

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        os.killpg(self.group, signal.SIGCONT)
        try:
            yield
        finally:
            os.killpg(self.group, signal.SIGSTOP)


def full_slice(side: Side, effort: Effort) -> Slice:
    with side.awake():
        return closed_loop(side.target, effort.connections, Bounds(10**9, effort.slice_seconds))


def latencies(side: Side, full: Slice, effort: Effort) -> dict[str, Any]:
    """What a lone client sees, and clients that come at random at half of the limit.

    `tail` is the p99 at half load over the lone client's p50 and p99; `others` is what the rest of the machine took
    at half load, in cores.
    """
    bounds = Bounds(10**9, effort.latency_seconds)
    with side.awake():
        lone = closed_loop(side.target, 1, bounds)
        others = others_seconds(side.group)
        half = open_loop(side.target, full.per_second / 2, bounds)
        others = others_seconds(side.group) - others
    late = tail(lone, half)
    return {
        "saturated": told_of(full), "unloaded": told_of(lone),
        "half_load": told_of(half) | {"others": others / half.seconds},
        "tail": None if late is None else dataclasses.asdict(late),
    }  # fmt: skip


def others_seconds(group: int) -> float:
    """Processor seconds that were taken so far by all but us and the processes of a server."""
    here, server = psutil.Process(), psutil.Process(group)
    ours = sum(sum(one.cpu_times()[:2]) for one in (here, server, *server.children(recursive=True)))
    times = psutil.cpu_times()
    return sum(times) - times.idle - times.iowait - ours


def reached(record: dict[str, Any]) -> dict[str, Any]:
    """The numbers that were to be reached, and whether they were."""
    ours, late, echo = record["vivace"], record["vivace"]["tail"], record["echo"]["tail"]
    found = {
        "per_second": ours["saturated"]["per_second"],
        "p99_at_half_load": {"of_ours": late, "of_an_echo": echo},
        "at_least_2000_per_second": ours["saturated"]["per_second"] >= LEAST_PER_SECOND,
        "p99_at_half_load_under_3_times_unloaded": None if late is None else late["over_p50"] < MOST_TIMES_UNLOADED,
    }  # fmt: skip
    if "vivace_over_litserve" in record:
        low = record["vivace_over_litserve"]["low"]
        found["more_than_litserve"] = None if low is None else low > 1.0  # None: too few blocks for an interval
    return found


@contextlib.contextmanager
def our_server(artifact: Path, *options: str) -> Iterator[tuple[Side, dict[str, Any]]]:
    command = [sys.executable, "-c", COMMAND, "serve", str(artifact), "--port", "0", "--json", "--quiet", "--trust"]
    with process([*command, *options], subprocess.PIPE) as server:
        assert server.stdout is not None
        lines = []
        for line in server.stdout:
            lines.append(line)
            if line == "}\n":
                break
        told = json.loads("".join(lines))
        host, _, port = told["address"].removeprefix("http://").rpartition(":")
        metadata = read_metadata(told["address"], told["model"])
        sent = messages((host, int(port)), metadata, of_artifact(artifact, metadata))
        yield Side(Target("vivace", host, int(port), sent), server.pid), told


@contextlib.contextmanager
def litserve_server(artifact: Path, batch: int) -> Iterator[Side | None]:
    """None where it is not installed."""
    if importlib.util.find_spec("litserve") is None:
        yield None
        return
    port = free_port()
    command = [sys.executable, str(HERE / "litserve_server.py"), str(artifact), str(port), str(max(batch, 2))]
    with process(command, subprocess.DEVNULL) as server:
        wait_for(lambda: healthy(port), server)
        metadata = {"inputs": [{"shape": [-1]}]}
        calls = of_artifact(artifact, metadata)
        sent = tuple(litserve_messages.message("127.0.0.1", port, call[0][1]) for call in calls)
        yield Side(Target("litserve", "127.0.0.1", port, sent), server.pid)


@contextlib.contextmanager
def echo_server(seconds: float, sent: tuple[bytes, ...]) -> Iterator[Side]:
    """A server that does nothing but take as long for each answer as ours at its limit; it gets the same messages."""
    command = [sys.executable, str(HERE / "echo_server.py"), str(seconds), str(ECHO_BYTES)]
    with process(command, subprocess.PIPE) as server:
        assert server.stdout is not None
        yield Side(Target("echo", "127.0.0.1", int(server.stdout.readline()), sent), server.pid)


@contextlib.contextmanager
def process(command: list[str], output: int) -> Iterator[subprocess.Popen[str]]:
    """A server in a session of its own; ended with all that it started."""
    environment = {**threads_environment(1), **os.environ}  # what our server gives its workers, for the other one too
    server = subprocess.Popen(command, stdout=output, text=True, start_new_session=True, env=environment)
    try:
        yield server
    finally:
        children = psutil.Process(server.pid).children(recursive=True) if server.poll() is None else []
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGCONT)
            os.killpg(server.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        for child in children:
            with contextlib.suppress(psutil.Error):
                child.kill()
        server.wait()
        if server.stdout is not None:
            server.stdout.close()


def soaked(artifact: Path, requests: int) -> dict[str, Any]:
    """Good and bad clients against two workers, of which one is killed now and then; memory before and after."""
    with our_server(artifact, "--workers", "2") as (side, told):
        server = psutil.Process(told["pid"])
        good = list(zip(side.target.messages, golden_rows(artifact), strict=False))
        held: list[int] = []
        over = threading.Event()
        watcher = threading.Thread(target=watch_memory, args=(told["address"], held, over))
        watcher.start()
        soak = Soak(
            (side.target.host, side.target.port), good, read_binary, (), lambda: worker_of(server),
            kills=max(1, requests // 10_000),
        )  # fmt: skip
        started = time.monotonic()
        found = soak.run(requests)
        seconds = time.monotonic() - started
        over.set()
        watcher.join()
    quarter = max(1, len(held) // 4)
    early, late = statistics.median(held[quarter : 2 * quarter] or held), statistics.median(held[-quarter:])
    return {
        **found, "seconds": seconds, "front_bytes_second_quarter": early, "front_bytes_last_quarter": late,
        "growth": late / early - 1, "front_bytes": held[:: max(1, len(held) // SOAK_SAMPLES)],
    }  # fmt: skip


def watch_memory(address: str, held: list[int], over: threading.Event) -> None:
    """The resident bytes of the front and its workers, as its metrics say them, once a second."""
    while not over.wait(1.0):
        with contextlib.suppress(OSError), urlopen(f"{address}/metrics") as answer:
            rows = answer.read().decode().splitlines()
            held.append(int(float(next(row for row in rows if row.startswith("vivace_resident_bytes ")).split()[1])))


def worker_of(server: psutil.Process) -> int | None:
    """One of its workers that serves."""
    found = [child for child in server.children() if "vivace.measure.worker" in " ".join(child.cmdline())]
    return found[0].pid if len(found) > 1 else None


def golden_rows(artifact: Path) -> list[np.ndarray]:
    """The first output of each golden sample, in the order of `of_artifact`."""
    calls, outputs = samples.read(artifact / GOLDEN_CALLS), samples.read_outputs(artifact / GOLDEN_OUTPUTS)
    return [outputs[i][0][row].numpy().ravel() for i in range(len(calls)) for row in range(calls[i][0].shape[0])]


def read_binary(body: bytes) -> np.ndarray:
    """The first output of an answer in binary; its JSON part ends where its braces do."""
    head, end = json.JSONDecoder().raw_decode(body.decode("latin-1"))
    size = head["outputs"][0]["parameters"]["binary_data_size"]
    return np.frombuffer(body[end : end + size], np.float32)


def told_of(found: Slice) -> dict[str, Any]:
    quantiles = {f"p{round(100 * one.share)}": dataclasses.asdict(one) for one in found.quantiles()}
    return {"per_second": found.per_second, "answers": len(found.latencies), "failed": found.failed} | quantiles


def values(found: Interval) -> dict[str, float | None]:
    return {"value": found.value, "low": found.low or None, "high": None if found.high == float("inf") else found.high}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def healthy(port: int) -> bool:
    with contextlib.suppress(OSError), urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
        return bool(answer.status == 200)
    return False


def wait_for(holds: Callable[[], bool], server: subprocess.Popen[str]) -> None:
    end = time.monotonic() + START_SECONDS
    while not holds():
        if server.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"LitServe did not start (exit code {server.poll()})")
        time.sleep(0.2)


if __name__ == "__main__":
    main()
