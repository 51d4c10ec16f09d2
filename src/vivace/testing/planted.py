"""Bad candidates, planted on purpose: techniques whose programs crash, hang, leak, lie or are slow.

Each is a real Technique, kept out of the catalogue. It leaves the stored program as it is, and misbehaves when the
search opens that program: its `program_entry` names `open_planted`, which the search then uses instead of the store's
own entry, with the arguments {"folder", "trust", "plan"}. Nothing in the store or in an artifact knows of faults, so a
stored program cannot ask for one: the fault is chosen by the plan that the searching process holds.

A search takes them by being given PLANTED beside its catalogue, and a builder by the reference
`vivace.testing.planted:PLANTED`.
"""

from __future__ import annotations

import atexit
import dataclasses
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from vivace.core.cost import Cost
from vivace.core.errors import UsageError
from vivace.core.facts import Fact
from vivace.core.program import Model
from vivace.core.structure import flatten
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.work import Work
from vivace.runtimes import store

ENTRY = "vivace.testing.planted:open_planted"
FOREVER_SECONDS = 1e6
LEAK_BYTES = 100_000_000
LOG_BYTES = 200_000_000
Program = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Planted(Technique):
    """A technique that changes nothing about the stored program. Subclasses say how it misbehaves when opened.

    Source: none; it exists to be caught.
    """

    stage = Stage.TARGET
    family = Family.SYSTEM
    effect = Effect.EXACT
    needs = frozenset({Fact.RUNNABLE})
    source = "planted by vivace.testing"
    program_entry: ClassVar[str] = ENTRY

    def rewrite(self, cost: Cost) -> Cost:
        """It promises to be faster, so that the search wants it."""
        return cost.replace(operator_seconds=cost.operator_seconds * 0.5, efficiency=min(1.0, cost.efficiency * 1.2))

    def apply(self, model: Model, work: Work) -> Model:
        """The model as it was."""
        return model

    def opened(self, program: Program) -> Program:
        """What is called in the program's place."""
        return program


def open_planted(arguments: Mapping[str, Any], payload: object | None = None) -> Program:
    """Worker entry: open a stored program and let the planted technique of the plan spoil it.

    `arguments`: folder, trust, and plan (as Plan.to_json gives it). Raises UsageError when the plan plants nothing.
    """
    known = {kind.name(): kind for kind in PLANTED}
    planted = [
        known[entry["technique"]](**entry["settings"]) for entry in arguments["plan"] if entry["technique"] in known
    ]
    if not planted:
        raise UsageError(f"the plan holds none of {', '.join(sorted(known))}")
    program: Program = store.load(Path(arguments["folder"]), bool(arguments.get("trust", False)))
    for technique in planted:
        program = technique.opened(program)
    return program


def _with_answers(program: Program, change: Callable[[Tensor], Tensor]) -> Program:
    """The program with each floating-point tensor of its answer changed."""

    def run(*args: Any, **kwargs: Any) -> Any:
        leaves, structure = flatten(program(*args, **kwargs), lambda value: isinstance(value, Tensor))
        return structure.build([change(leaf) if leaf.is_floating_point() else leaf for leaf in leaves])

    return run


def _with_calls(program: Program, before: Callable[[int], object]) -> Program:
    """The program, with something done before each call, given the call's number from 1."""
    calls = 0

    def run(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        before(calls)
        return program(*args, **kwargs)

    return run


def _crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


@dataclasses.dataclass(frozen=True)
class CrashAtConvert(Planted):
    """Dies of a segmentation fault while the plan is built. Source: planted."""

    def apply(self, model: Model, work: Work) -> Model:
        """Never returns."""
        _crash()
        return model


@dataclasses.dataclass(frozen=True)
class CrashAtFirstCall(Planted):
    """Dies of a segmentation fault when it is first called. Source: planted."""

    def opened(self, program: Program) -> Program:
        """A program that never answers."""
        return _with_calls(program, lambda number: _crash())


@dataclasses.dataclass(frozen=True)
class CrashAtCall(Planted):
    """Answers rightly `calls` - 1 times and dies of a segmentation fault at the next. Source: planted."""

    calls: int = 50

    def opened(self, program: Program) -> Program:
        """A program that dies late."""
        return _with_calls(program, lambda number: _crash() if number >= self.calls else None)


@dataclasses.dataclass(frozen=True)
class HangInCompile(Planted):
    """Never finishes loading, where compilation happens. Source: planted."""

    def opened(self, program: Program) -> Program:
        """Does not return in a week."""
        time.sleep(FOREVER_SECONDS)
        return program


@dataclasses.dataclass(frozen=True)
class HangAtExit(Planted):
    """Works, and hangs when its process is to end. Source: planted."""

    def opened(self, program: Program) -> Program:
        """The right program."""
        atexit.register(time.sleep, FOREVER_SECONDS)
        return program


@dataclasses.dataclass(frozen=True)
class Leak(Planted):
    """Takes about 1 GB of memory a second from the moment it is loaded. Source: planted."""

    def opened(self, program: Program) -> Program:
        """The right program, beside a thread that hoards."""
        threading.Thread(target=_hoard, daemon=True).start()
        return program


def _hoard() -> None:
    hoard = []
    while True:
        hoard.append(b"x" * LEAK_BYTES)
        time.sleep(0.1)


@dataclasses.dataclass(frozen=True)
class NanAnswer(Planted):
    """Answers with NaN. Source: planted."""

    def opened(self, program: Program) -> Program:
        """A program of NaN."""
        return _with_answers(program, lambda leaf: torch.full_like(leaf, float("nan")))


@dataclasses.dataclass(frozen=True)
class ConstantAnswer(Planted):
    """Answers with ones whatever is asked; says that it changed the computation, so that the gate must see it.

    Source: planted.
    """

    effect = Effect.CHANGED

    def opened(self, program: Program) -> Program:
        """A program of ones."""
        return _with_answers(program, torch.ones_like)


@dataclasses.dataclass(frozen=True)
class BatchDependentAnswer(Planted):
    """Right for one sample; with more, each answer depends on the others in its batch. Source: planted."""

    effect = Effect.CHANGED

    def opened(self, program: Program) -> Program:
        """A program that centres its answers over the batch."""
        return _with_answers(program, _centred)


def _centred(leaf: Tensor) -> Tensor:
    return leaf - leaf.mean(0, keepdim=True) if leaf.dim() and leaf.shape[0] > 1 else leaf


@dataclasses.dataclass(frozen=True)
class CachedAnswer(Planted):
    """Remembers its answers by their inputs, so that repeated inputs look fast; new ones take `seconds` longer.

    Source: planted; MLPerf inference calls the check for it TEST04.
    """

    seconds: float = 0.005

    def opened(self, program: Program) -> Program:
        """A program with a memory."""
        known: dict[Any, Any] = {}

        def run(*args: Any, **kwargs: Any) -> Any:
            leaves, _ = flatten([list(args), kwargs], lambda value: isinstance(value, Tensor))
            key = tuple(leaf.numpy().tobytes() for leaf in leaves)
            if key not in known:
                time.sleep(self.seconds)
                known[key] = program(*args, **kwargs)
            return known[key]

        return run


@dataclasses.dataclass(frozen=True)
class WrongOnOneClass(Planted):
    """Wrong on about `share` of the samples that belong to class 0, and exact on all others. Source: planted."""

    share: float = 0.01

    effect = Effect.CHANGED

    def opened(self, program: Program) -> Program:
        """A program with a blind spot."""
        return _with_answers(program, self._spoiled)

    def _spoiled(self, scores: Tensor) -> Tensor:
        if scores.dim() != 2 or scores.shape[1] < 2:
            return scores
        dice = (scores.double().abs().sum(1) * 1e6).long() % 10_000  # as good as random, and the same every time
        hit = (scores.argmax(1) == 0) & (dice < self.share * 10_000)
        return torch.where(hit[:, None], scores.flip(1), scores)


@dataclasses.dataclass(frozen=True)
class WrongInOneShape(Planted):
    """Off by a tenth for calls whose first tensor has `size` in its last dimension, and exact for all others.

    Source: planted.
    """

    size: int = 64

    def opened(self, program: Program) -> Program:
        """A program that one shape unmasks."""
        wrong = _with_answers(program, lambda leaf: leaf * 1.1)

        def run(*args: Any, **kwargs: Any) -> Any:
            leaves, _ = flatten([list(args), kwargs], lambda value: isinstance(value, Tensor))
            return (wrong if leaves[0].shape[-1] == self.size else program)(*args, **kwargs)

        return run


@dataclasses.dataclass(frozen=True)
class Equal(Planted):
    """Takes exactly as long as `tiny.Paced(seconds)`. Source: planted."""

    seconds: float = 0.01

    def opened(self, program: Program) -> Program:
        """A program that sleeps first."""
        return _with_calls(program, lambda number: time.sleep(self.seconds * self.factor()))

    def factor(self) -> float:
        """Its time as a multiple of the original's."""
        return 1.0


@dataclasses.dataclass(frozen=True)
class Slower(Equal):
    """Takes 1.3 times as long as `tiny.Paced(seconds)`. Source: planted."""

    def factor(self) -> float:
        """Its time as a multiple of the original's."""
        return 1.3


@dataclasses.dataclass(frozen=True)
class Faster(Equal):
    """5% faster than `tiny.Paced(seconds)`. Source: planted."""

    def factor(self) -> float:
        """Its time as a multiple of the original's."""
        return 1 / 1.05


@dataclasses.dataclass(frozen=True)
class FloodsLog(Planted):
    """Prints 200 MB to standard error while it loads. Source: planted."""

    def opened(self, program: Program) -> Program:
        """The right program, after a flood."""
        line = "x" * 999_999 + "\n"
        for _ in range(LOG_BYTES // len(line)):
            sys.stderr.write(line)
        return program


@dataclasses.dataclass(frozen=True)
class IgnoresTermination(Planted):
    """Ignores SIGTERM and hangs in its first call. Source: planted."""

    def opened(self, program: Program) -> Program:
        """A program that only SIGKILL ends."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return _with_calls(program, lambda number: time.sleep(FOREVER_SECONDS))


PLANTED: tuple[type[Planted], ...] = (
    CrashAtConvert,
    CrashAtFirstCall,
    CrashAtCall,
    HangInCompile,
    HangAtExit,
    Leak,
    NanAnswer,
    ConstantAnswer,
    BatchDependentAnswer,
    CachedAnswer,
    WrongOnOneClass,
    WrongInOneShape,
    Slower,
    Equal,
    Faster,
    FloodsLog,
    IgnoresTermination,
)
"""Every planted fault, for the search's own tests."""
