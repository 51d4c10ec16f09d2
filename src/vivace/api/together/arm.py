"""The steps of several processes as one side of a comparison: launched by its worker, timed by their first rank."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from vivace.api.together.team import MEMBER, QUIET, team_of
from vivace.core.errors import WorkerFailure
from vivace.core.measurement import Outcome
from vivace.core.plan import Plan
from vivace.core.training.job import Training
from vivace.distributed.launch import Launcher, open_launcher
from vivace.distributed.team import Team
from vivace.measure import parcel
from vivace.measure.live import ArmSpec

ALONE = "vivace.training.service:open_step"
TOGETHER = "vivace.api.together.arm:open_steps"
VARIABLES = QUIET
"""What the workers of both sides have in their environment."""


def arm_of(job: Training, plan: Plan, like: Team | None = None) -> ArmSpec:
    """The steps of a plan: of one process, or of as many as its layout has. They are patient as the team `like` is, and
    not started again: steps that somebody died in are no measurement."""
    team = team_of(plan, job, like)
    if team is None:
        return ArmSpec(ALONE, {}, (job, plan), str(plan))
    asked = {"team": dataclasses.replace(team, restarts=0).to_json(), "entry": MEMBER, "arguments": {}}
    return ArmSpec(TOGETHER, asked, parcel.packed((job, plan)), str(plan))


def open_steps(arguments: Mapping[str, Any], payload: bytes) -> TeamSteps:
    """A program for an arm: each call lets all ranks take one step on the next batch."""
    found = TeamSteps(open_launcher(arguments, payload))
    found.ask("begin", {})
    return found


class TeamSteps:
    """Lets ranks take steps. Seconds are of the first rank: every step ends with something that all do together."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher

    def __call__(self, *_: Any) -> None:
        """One step."""
        self.timed(1)

    def timed(self, calls: int) -> list[float]:
        """The seconds of so many steps. Raises WorkerFailure where a rank has died."""
        found: list[float] = self.ask("take", {"steps": calls})
        return found

    def ask(self, method: str, arguments: Mapping[str, Any]) -> Any:
        """What the first rank answers. Raises WorkerFailure where a rank has died."""
        told = self._launcher.ask(method, arguments)
        if "restarted" in told:
            raise WorkerFailure(Outcome.CRASHED, told["restarted"])
        return told["result"]

    def close(self) -> None:
        """Let the ranks leave."""
        self._launcher.close()
