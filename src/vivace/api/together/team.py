"""Several processes that train together, seen from the front door: one worker launches them and passes things on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from vivace.core.errors import UsageError, WorkerFailure
from vivace.core.facts import OF_THE_MACHINE
from vivace.core.measurement import Outcome
from vivace.core.plan import Plan
from vivace.core.training.job import Training
from vivace.core.training.run import Diagnosis
from vivace.devices.machine import threads_here
from vivace.distributed.layout import Layout
from vivace.distributed.team import Team
from vivace.measure import parcel
from vivace.measure.process import Phase, Worker
from vivace.search.training.choose import START
from vivace.search.training.diagnosis import diagnosis_of
from vivace.techniques.parallel.layouts import layout_of, with_layout
from vivace.training.rig import seeded

LAUNCHER = "vivace.distributed.launch:open_launcher"
MEMBER = "vivace.api.together.ranks:open_member"
DIAGNOSED_STEPS = 5
SLACK_SECONDS = 120.0
"""What a command may take beside the deadline of a rank that hangs, and a restart."""
QUIET = {"TORCH_CPP_LOG_LEVEL": "ERROR"}
"""The store warns of each wait that was in vain, and those of the launcher are short on purpose."""


class Restarted(Exception):
    """The ranks have started again, and know nothing of what they were told before; `reason` says why."""

    def __init__(self, reason: str, processes: int) -> None:
        self.reason = reason
        self.processes = processes
        super().__init__(reason)


class RankHand:
    """A team's ranks, with the doors of a worker that trains: what it is told, every rank is told.

    Raises Restarted from `call` where they have had to start again. `processes` are as many as answered last, and
    at first those of all machines, which may leave and join (`is_elastic`) where there are several.
    """

    def __init__(self, worker: Worker, team: Team) -> None:
        self.processes = team.everyone
        self.is_elastic = not team.is_on_one_machine
        self._worker = worker
        self._seconds = team.deadline + worker.limits.seconds(Phase.CONVERT) + SLACK_SECONDS

    @property
    def peak_bytes(self) -> int:
        """The most memory that the launcher and its ranks were seen to hold together."""
        return self._worker.peak_bytes

    def call(self, method: str, arguments: Mapping[str, Any] | None = None, phase: Phase = Phase.CONVERT) -> Any:
        """Let every rank do something; the first one's answer."""
        asked = {"method": method, "arguments": dict(arguments or {})}
        told = self._worker.call("ask", asked, phase, seconds=self._seconds)
        self.processes = told["processes"]
        if "restarted" in told:
            raise Restarted(told["restarted"], self.processes)
        return told["result"]


def open_ranks(worker: Worker, team: Team, job: Training, plan: Plan, arguments: Mapping[str, Any]) -> RankHand:
    """Start a team's ranks in a worker. Raises EnvironmentFault where they cannot meet."""
    asked = {"team": team.to_json(), "entry": MEMBER, "arguments": dict(arguments)}
    worker.open(LAUNCHER, asked, parcel.packed((job, plan)), Phase.CONVERT)
    return RankHand(worker, team)


def diagnosed(ranks: RankHand, alone: Diagnosis) -> Diagnosis:
    """Where the time of a step goes that all take together, beside what one process takes."""
    asked = {"steps": DIAGNOSED_STEPS, "flops": alone.flops}
    return diagnosis_of(steadily(ranks, "diagnosis", asked), alone.ceiling_gflops)


def team_for(job: Training, team: Team) -> Team:
    """A team with what depends on the job and the machine: where the model is, and the threads of each process. Raises
    UsageError where there are fewer CUDA devices."""
    with seeded(job.seed):
        parameter = next(job.model().parameters(), None)
    device = "cuda" if parameter is not None and parameter.device.type == "cuda" else "cpu"
    found = dataclasses.replace(team, device=device, threads=max(1, threads_here() // team.processes))
    found.check_cards(torch.cuda.device_count())
    return found


def planned(plan: Plan, team: Team) -> Plan:
    """A plan with the techniques of the team's layout. Raises UsageError where they cannot stand together."""
    return laid_out(plan, Layout.of(team.layout, team.everyone))


def laid_out(plan: Plan, layout: Layout) -> Plan:
    """A plan with the techniques of a layout. Raises UsageError where they cannot stand together."""
    found = with_layout(plan, layout)
    reason = found.illegal(START | OF_THE_MACHINE)
    if reason is not None:
        raise UsageError(f"the plan {found} is not possible: {reason}")
    return found


def team_of(plan: Plan, job: Training, like: Team | None = None) -> Team | None:
    """The team of this machine that a plan needs, as patient as another one; None where one process trains with it."""
    layout = layout_of(plan)
    if layout.processes == 1:
        return None
    found = dataclasses.replace(like or Team(), processes=layout.processes, layout=str(layout))
    return team_for(job, found)


def steadily(ranks: RankHand, method: str, arguments: Mapping[str, Any]) -> Any:
    """What ranks answer to something that needs nothing told before: again where they have started again meanwhile.
    Raises WorkerFailure where fewer are left of those on one machine: what these would answer is of another layout."""
    before = ranks.processes
    while True:
        try:
            return ranks.call(method, arguments)
        except Restarted as restart:  # as often as the team may
            if restart.processes < before and not ranks.is_elastic:
                raise WorkerFailure(Outcome.CRASHED, restart.reason) from restart
