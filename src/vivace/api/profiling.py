"""Where the time of a call goes: the winner and the original under their engines' profilers, each in a fresh worker."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vivace.api.overhead import FAILURES
from vivace.core.compute import Profile, Profiles
from vivace.core.layer import Fused, FusedList
from vivace.core.program import Form
from vivace.core.result import Result
from vivace.data import samples
from vivace.measure.process import Limits, Phase, Worker
from vivace.runtimes import store
from vivace.search.account.served import with_served_flops
from vivace.search.caches import compiler_variables
from vivace.search.prepare import Prepared
from vivace.search.schedule import Schedule

PRELOAD = ("vivace.measure.services.profiler", "vivace.runtimes.profiles.opening", "vivace.runtimes.fusions.lister")
NO_TIME = "no time was left"
COMPILED_ANEW = frozenset({Form.INDUCTOR})
"""Forms whose kernels tell their time only when they were compiled to do so."""


@dataclasses.dataclass(frozen=True)
class Findings:
    """What one worker told of a program: what is fused in it, and where its time goes or why that is not known."""

    fused: FusedList
    profile: Profile | None = None
    reason: str = ""


class Reader:
    """Asks workers about the programs of one result, before the artifact is due. `folder` holds the winner's program.

    Never raises for what a worker does.
    """

    def __init__(self, result: Result, program: Path, prepared: Prepared, schedule: Schedule) -> None:
        self._result = result
        self._program = program
        self._prepared = prepared
        self._schedule = schedule

    def left(self) -> float:
        """Seconds before the artifact is due."""
        return self._schedule.left() - self._schedule.publish_seconds(None)

    def winner(self, listing_seconds: float) -> Findings:
        """What is fused in the winner, which takes so long to list beside loading or compiling it; and its profile, if
        what remains to be measured after it is likely to end in time."""
        if self.left() < listing_seconds + self._loading_seconds() + self._schedule.opening_seconds:
            return Findings(FusedList(note=f"not listed: {NO_TIME}"), reason=NO_TIME)
        try:
            with self._worker("fused") as worker:
                fused = fused_in(worker, self._program, self._prepared.program, self.left)
                return Findings(fused, *self._profiled_winner(worker))
        except FAILURES as failure:  # the worker could not be started, or did not survive
            return Findings(FusedList(note=f"not listed: {failure}"), reason=str(failure))

    def original(self) -> tuple[Profile | None, str]:
        """The profile of the captured original; None with the reason where it cannot be had."""
        seconds = self._result.comparison.baseline.median_seconds
        if self.left() < self._schedule.opening_seconds + self._schedule.profile_seconds(seconds):
            return None, NO_TIME
        try:
            with self._worker("profile") as worker:
                return self._profile_in(worker, self._prepared.program)
        except FAILURES as failure:
            return None, str(failure)

    def _worker(self, name: str) -> Worker:
        folder = self._prepared.work.folder
        variables = compiler_variables(folder, self._prepared.platform)
        limits = Limits().within(max(1.0, self.left()))
        return Worker(folder / name, limits, variables, PRELOAD, fresh=False)

    def _profiled_winner(self, worker: Worker) -> tuple[Profile | None, str]:
        if not len(self._result.plan):
            return None, "it is the original"
        if any(technique.program_entry for technique in self._result.plan):
            return None, "the plan opens its program in a way of its own"
        seconds = self._result.comparison.candidate.median_seconds
        needed = self._schedule.profile_seconds(seconds, self._loading_seconds())
        if self.left() < needed + self._schedule.measuring_seconds():
            return None, NO_TIME
        return self._profile_in(worker, self._program)

    def _loading_seconds(self) -> float:
        if store.describe(self._program).form not in COMPILED_ANEW:
            return 0.0
        return next((trial.load_seconds for trial in self._result.candidates if trial.plan == self._result.plan), 0.0)

    def _profile_in(self, worker: Worker, program: Path) -> tuple[Profile | None, str]:
        try:
            return profile_in(worker, program, self._prepared.program, self._prepared.confirm_calls, self.left), ""
        except FAILURES as failure:
            return None, str(failure)


def fused_in(worker: Worker, program: Path, original: Path, left: Callable[[], float]) -> FusedList:
    """What is fused in a program folder; the reason where that cannot be told. `left` says how many seconds the worker
    still has."""
    try:
        worker.open("vivace.runtimes.fusions.lister:open_lister", {}, phase=Phase.LOAD, seconds=left())
        asked = {"program": str(program), "original": str(original)}
        told = worker.call("fused", asked, Phase.COMPILE, left())
    except FAILURES as failure:
        return FusedList(note=f"not listed: {failure}")
    return FusedList(tuple(Fused.from_json(group) for group in told["groups"]), told["note"])


def profile_in(worker: Worker, program: Path, original: Path, calls: Path, left: Callable[[], float]) -> Profile:
    """The profile of a program folder, called as it was timed, with the most frequent shape where there are several.

    `left` says how many seconds the worker still has. Raises what a worker raises.
    """
    stored = samples.read(calls)
    indices = most_frequent(stored)
    shapes = [list(leaf.shape) for leaf in stored[indices[0]]]
    opened = {"program": str(program), "original": str(original), "shapes": shapes}
    arguments: Mapping[str, Any] = {
        "program": "vivace.runtimes.profiles.opening:open_profiled",
        "arguments": opened,
        "calls": str(calls),
        "indices": indices,
    }
    worker.open("vivace.measure.services.profiler:open_profiler", arguments, phase=Phase.COMPILE, seconds=left())
    profile = Profile.from_json(worker.call("profile", {}, Phase.MEASURE, left()))
    several = "calls are of the most frequent shape" if stored.mix is not None else ""
    return dataclasses.replace(profile, note="; ".join(filter(None, (profile.note, several))))


def most_frequent(stored: samples.StoredCalls) -> list[int]:
    """Which calls are of the shape that most calls have; all, where they come in one."""
    if stored.mix is None:
        return list(range(len(stored)))
    heaviest = max(range(len(stored.mix.weights)), key=stored.mix.weights.__getitem__)
    return [index for index, shape in enumerate(stored.mix.shapes) if shape == heaviest]


def profiles_of(found: Findings, original: Profile | None, reason: str) -> Profiles:
    """Both profiles, the winner's with the work of the original's layers, and why either is missing."""
    winner = found.profile
    if winner is not None and original is not None:
        winner = with_served_flops(winner, original)
    told = (("the original", original, reason), ("the winner", winner, found.reason))
    missing = [f"{name} is not profiled: {why}" for name, profile, why in told if profile is None]
    return Profiles(original, winner, "; ".join(missing))
