"""An arm that is running: a worker with a program open in it, warmed, and stopped whenever it is not its turn."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch.nn.utils import parametrize

from vivace.core.errors import DiskFull, EnvironmentFault, UsageError, WorkerFailure
from vivace.core.measurement import Outcome
from vivace.core.workload import Mix
from vivace.measure import parcel
from vivace.measure.arm import SAMPLES
from vivace.measure.clock import SystemClock
from vivace.measure.process import STANDARD, Limits, Phase, Worker

ENTRY = "vivace.measure.arm:open_arm"
MOST_WARM_CALLS = 5000


@dataclasses.dataclass(frozen=True)
class ArmSpec:
    """What an arm runs: `program` is "module:function", called in the worker with (arguments, payload); it returns the
    callable that is timed. `device` is where the inputs lie. `samples` names the module that reads stored calls.
    """

    program: str
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    payload: object | None = None
    name: str = ""
    device: str = "cpu"
    samples: str = SAMPLES


@dataclasses.dataclass(frozen=True)
class Reading:
    """What was read from one arm: the seconds of every timed call, what is paid once, and its peak memory.

    `mix` says which shape each timed call had, where they come in several.
    """

    seconds: tuple[float, ...]
    load_seconds: float
    first_call_seconds: float
    steady: bool
    peak_bytes: int
    mix: Mix | None = None
    waited_share: float = 0.0
    """Of the time in which the arm's threads could run, what they waited for a core."""


def installed_modules(payload: object) -> tuple[str, ...]:
    """The modules of installed packages that define a network's layers, which opening it imports: an interpreter that
    starts ahead imports them then. Not PyTorch's own, and none of the user's files, which need not be importable.

    >>> installed_modules(torch.nn.Linear(2, 2))
    ()
    """
    folders = _installation_folders()
    return tuple(name for name in _layer_modules(payload) if _file_of(name).startswith(folders))


def _installation_folders() -> tuple[str, ...]:
    """Where packages are installed that this interpreter sees: its own folders, and those of another environment, of
    the system or of the user that lie on the search path."""
    own = {sysconfig.get_paths()[kind] for kind in ("purelib", "platlib")}
    others = {entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")}
    return tuple(folder + os.sep for folder in sorted(own | others))


def preload_of(spec: ArmSpec) -> tuple[str, ...]:
    """The modules that an interpreter for an arm imports while nobody waits for it: the user's own too, where they are
    what opening the payload imports."""
    modules = (entry.partition(":")[0] for entry in (ENTRY, spec.program, spec.samples))
    installed = installed_modules(spec.payload)
    own = (name for name in _layer_modules(spec.payload) if name not in installed and parcel.goes_by_name(name))
    return (*modules, *installed, *own)


def _layer_modules(payload: object) -> list[str]:
    """The modules that define a network's layers, but PyTorch's own and what was run as a script."""
    layers = payload.modules() if isinstance(payload, torch.nn.Module) else ()
    names = {parametrize.type_before_parametrizations(layer).__module__ for layer in layers}
    return sorted(name for name in names if name.split(".")[0] not in ("torch", "__main__"))


def _file_of(module: str) -> str:
    return getattr(sys.modules.get(module), "__file__", None) or ""


class LiveArm:
    """One arm in a worker of its own, which starts at once. A context manager; leaving it ends the worker.

    `fresh` asks for an interpreter of its own, as a claim needs it. `seconds` are all calls that were timed, in order;
    `mix` says which shape each input has that timing walks, and is None where they all have the same. Failures of the
    worker are raised as WorkerFailure; those of a baseline (`is_baseline`) as INFRA_ERROR, so that no candidate is
    blamed for them.
    """

    def __init__(
        self,
        spec: ArmSpec,
        calls: Path,
        folder: Path,
        limits: Limits = STANDARD,
        environment: Mapping[str, str] | None = None,
        is_baseline: bool = False,
        fresh: bool = True,
    ) -> None:
        self.spec = spec
        self.is_baseline = is_baseline
        self.calls = calls
        self.seconds: list[float] = []
        self.load_seconds = 0.0
        self.first_call_seconds = 0.0
        self.warmed_seconds = 0.0
        self.seconds_per_call = 0.0
        self.steady = False
        self.peak_bytes = 0
        self.waited_share = 0.0
        self.distinct_inputs = 0
        self.mix: Mix | None = None
        self._shapes: list[int] = []
        self._cached: dict[str, Any] | None = None
        self._is_posted = self._is_opened = False
        self.worker = Worker(folder, limits, environment, preload=preload_of(spec), fresh=fresh)

    def start(self, warm_seconds: float = 5.0) -> None:
        """Load the program and its calls, make the first call, warm up, and stop until asked."""
        self.open()
        self.settle(warm_seconds)

    def post(self) -> None:
        """Have the program and its calls loaded, and go on meanwhile; `open` waits until they are."""
        arguments = {
            "program": self.spec.program,
            "arguments": dict(self.spec.arguments),
            "calls": str(self.calls),
            "device": self.spec.device,
            "samples": self.spec.samples,
        }
        with self._blame():
            self.worker.post(ENTRY, arguments, self.spec.payload, Phase.LOAD)
        self._is_posted = True

    def open(self) -> None:
        """Load the program and its calls, and stop until asked."""
        if self._is_opened:
            return
        if not self._is_posted:
            self.post()
        with self._blame():
            opened = self.worker.opened()
        self.worker.pause()
        self._is_opened = True
        self.load_seconds = opened["load_seconds"]
        self.distinct_inputs = opened["calls"]
        self.mix = Mix.from_json(opened.get("mix"))

    def settle(self, warm_seconds: float = 5.0) -> None:
        """Make the first call, warm up, and stop until asked."""
        self.first_call_seconds = self.ask("first_call", phase=Phase.FIRST_CALL)["seconds"]
        self.warm(warm_seconds)

    def ready(self) -> None:
        """Wait until the interpreter has started and imported what it needs, and stop it until asked."""
        with self._blame():
            self.worker.ready()
        self.worker.pause()

    def warm(self, seconds: float = 5.0) -> None:
        """Call until times settle, at most this long (a call that runs is finished)."""
        clock = SystemClock()
        started = clock.now()
        warmed = self.ask("warm", {"max_seconds": seconds, "max_calls": MOST_WARM_CALLS})
        self.warmed_seconds = clock.now() - started
        self.steady = warmed["steady"]
        self.seconds_per_call = warmed["seconds_per_call"]

    def time(self, start: int, calls: int) -> list[float]:
        """Seconds of each call, from input `start` on; one call settles the arm first unless calls are long."""
        seconds: list[float] = self.ask("time", {"start": start, "calls": calls, "settle": calls > 1})
        self.seconds += seconds
        if self.mix is not None:
            self._shapes += self.mix.walk(start, calls).shapes
        return seconds

    def ask(self, method: str, arguments: Mapping[str, Any] | None = None, phase: Phase = Phase.MEASURE) -> Any:
        """Wake the arm, call one of its methods, and stop it again."""
        with self._blame():
            answer = self.worker.call(method, arguments, phase)
        self.worker.pause()
        return answer

    def caching(self) -> dict[str, Any]:
        """Whether the program answers repeated inputs from memory (`Arm.caching`); asked once, then remembered."""
        if self._cached is None:
            self._cached = self.ask("caching")
        return self._cached

    def reading(self, since: int = 0) -> Reading:
        """What was read so far, of the timed calls from number `since` on."""
        return Reading(
            tuple(self.seconds[since:]),
            self.load_seconds,
            self.first_call_seconds,
            self.steady,
            self.peak_bytes,
            self.mix and Mix(tuple(self._shapes[since:]), self.mix.weights),
            self.waited_share,
        )

    def read_memory(self) -> int:
        """Peak bytes since the program was loaded: the device's where it uses one, the host's otherwise."""
        found = self.ask("memory")
        self.peak_bytes = found["device_peak_bytes"] or found["peak_bytes"]
        return self.peak_bytes

    def read_waiting(self) -> None:
        """How long the arm's threads waited for a core while they were timed."""
        self.waited_share = self.ask("waited_share")

    def read_clock(self) -> str:
        """What the reader of this arm's times should know of the device's clock; empty where there is nothing."""
        note: str = self.ask("clock_note")
        return f"{self.spec.name}: {note}" if note and self.spec.name else note

    @contextlib.contextmanager
    def _blame(self) -> Iterator[None]:
        """Turn whatever a program raises into an outcome of its arm; a full disk ends the search, not the candidate."""
        try:
            yield
        except WorkerFailure as failure:
            if failure.outcome is Outcome.DISK_FULL:
                raise DiskFull(failure.reason) from failure
            if not self.is_baseline:
                raise
            raise WorkerFailure(Outcome.INFRA_ERROR, f"the baseline failed, not the candidate: {failure}") from failure
        except (UsageError, EnvironmentFault) as error:
            if self.is_baseline:
                raise
            raise WorkerFailure(Outcome.CRASHED, f"{type(error).__name__}: {error}") from error

    def close(self) -> None:
        """End the worker."""
        self.worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.worker.__exit__(kind, error, trace)
