"""`vivace.train`: diagnose a training, choose a plan, prove that it trains the same, and train."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vivace.api.parity import LIMITS
from vivace.api.request import machine_of, refuse_contradictions
from vivace.api.running.folder import check_out, processes_of, read_plan_of
from vivace.api.running.session import took_part, trained
from vivace.api.step_plans import Choice, Chosen
from vivace.api.together.choosing import TogetherChoice
from vivace.api.together.team import QUIET, diagnosed, open_ranks, planned, team_for
from vivace.api.training_request import checked, sending, training_plan_of
from vivace.core.errors import UsageError, WorkerFailure
from vivace.core.machine import Ceiling
from vivace.core.plan import Plan
from vivace.core.training.job import Training
from vivace.core.training.run import Diagnosis, TrainingRun
from vivace.devices import ceiling_store
from vivace.distributed.launch import listening
from vivace.distributed.layout import Layout
from vivace.distributed.team import Team
from vivace.measure import environment
from vivace.measure.clock import SystemClock
from vivace.measure.forking import client
from vivace.measure.process import Limits, Phase, Worker
from vivace.report.duration import parse_duration, show_duration
from vivace.report.progress import Progress, SilentProgress
from vivace.search.account.payback import break_even_steps
from vivace.search.training.diagnosis import diagnosis_of
from vivace.search.training.layouts import ranked
from vivace.techniques.parallel.layouts import layout_of, with_layout

DIAGNOSED_STEPS = 20
DIAGNOSIS_ENTRY = "vivace.search.training.diagnosis:open_diagnosis"


def diagnose(job: Training, limits: Limits = LIMITS, team: Team | None = None, until: float | None = None) -> Diagnosis:
    """Where the time and the memory of a job's step go on this machine, in a process of its own; with a `team`, of the
    step that its processes take together, with what they exchange. A training that stops at a score (`until`) may have
    a schedule that is too short for all its epochs, of which a note then tells."""
    alone = _diagnosed(checked(job), Plan(), None, limits, until)
    if team is None or team.everyone == 1:
        return alone
    if not team.is_on_one_machine:
        raise UsageError("a diagnosis (--diagnose-only) is of the processes of one machine; leave --nodes out")
    team = team_for(job, team)
    with (
        sending(job),
        tempfile.TemporaryDirectory(prefix="vivace-") as name,
        Worker(Path(name), limits, QUIET) as worker,
    ):
        found = diagnosed(open_ranks(worker, team, job, planned(Plan(), team), {}), alone)
    told = f"a step of one process takes {alone.step_seconds * 1e3:.3g} ms, bound by {alone.bound_words}"
    return dataclasses.replace(found, notes=(*found.notes, told))


def _diagnosed(job: Training, plan: Plan, flops: float | None, limits: Limits, until: float | None = None) -> Diagnosis:
    """The same of a plan's step; `flops` are those of the original, None for the original itself."""
    machine = machine_of("auto")
    folder = tempfile.TemporaryDirectory(prefix="vivace-")
    with sending(job), folder as name, Worker(Path(name), limits, fresh=False) as worker:
        worker.open(DIAGNOSIS_ENTRY, {}, (job, plan), Phase.LOAD)
        read = worker.call("read", {"steps": DIAGNOSED_STEPS, "flops": flops, "until": until}, Phase.MEASURE)
    threads, device = read["threads"], read["device"]
    ceilings = {_place(one): one.gflops.get("f32") for one in ceiling_store.kept(machine)}
    place = device if device == "cuda" else threads
    return diagnosis_of(read, ceilings.get(place) or _ceiling_gflops(place))


def _place(ceiling: Ceiling) -> int | str:
    """What a training's ceiling is looked up by: the count of threads, or the device."""
    return ceiling.threads if ceiling.device == "cpu" else ceiling.device


@functools.cache
def _ceiling_gflops(place: int | str) -> float | None:
    """The machine's rate in float32 with so many threads, or on its device, where `vivace doctor` kept none: measured
    in a process of its own, once in this one. None where that fails."""
    asked: dict[str, Any] = {"threads": [place], "precisions": ["f32"]}
    if isinstance(place, str):
        asked = {"threads": [], "precisions": [], "on_device": ["f32"]}
    with tempfile.TemporaryDirectory(prefix="vivace-") as name, Worker(Path(name)) as worker:
        try:
            worker.open("vivace.measure.services.probe:open_probe", {}, phase=Phase.LOAD)
            told = worker.call("ceilings", asked, Phase.MEASURE)
        except WorkerFailure:
            return None
    found = ceiling_store.read_ceilings(told["ceilings"])
    return found[0].gflops.get("f32") if found else None


def train(
    job: Training,
    until: float | None = None,
    processes: int = 1,
    out: str | Path | None = None,
    *,
    time: str | float = "3m",
    only: Sequence[str] = (),
    without: Sequence[str] = (),
    plan: Plan | Sequence[str | Mapping[str, Any]] | None = None,
    changed: bool = False,
    resume: bool = False,
    layout: str | Layout = "",
    team: Team | None = None,
    progress: Progress | None = None,
    limits: Limits = LIMITS,
) -> TrainingRun:
    """Train a job as fast as this machine can, and as the original would have been trained.

    First the original's step is diagnosed. Then techniques are added one by one, each kept if its gradients agree with
    the original's and its steps are measured to be faster; the plan is proved once more as a whole and confirmed in
    fresh pairs of processes, and dropped unless that shows it to be faster. Then the model is trained with it, in a
    process of its own. Batch size, learning rate and schedule stay as they are.

    `until` ends the training at the first epoch after which `evaluate` gives that much. `time` is the most that
    choosing the plan may take, from the diagnosis to the confirmation; one plan is tried in any case. `only` and
    `without` name techniques; `plan` takes one plan, which is proved and not timed. `changed` allows techniques that
    change the computation by design. `out` receives model.safetensors, run.json, its page report.html and, while it
    trains, checkpoints; with `resume` a run that was stopped goes on exactly where it was, with the plan that it had
    less what `without` names, if it is of the same job: name, numbers, model, length of data, optimizer's settings.

    With `processes` more than 1, that many train together, arranged by `layout`: "" for copies of the model
    ("data=2,tensor=2" and the like otherwise, see `distributed.layout.Layout`). Batches, their order, the schedule and
    the random numbers stay those of one process, which is proved before. A process that dies is started again from the
    last checkpoint. Without a layout every one that is possible is timed against one process, and the fastest trains,
    which may be one process; a layout that is given trains. Techniques are tried with all processes at work. `team` is
    for several machines, on which the plan is taken as it is given.

    Raises UsageError for a job that cannot be used, and where a loss stops being finite; WorkerFailure where the
    training's process dies, after which `resume` goes on; DiskFull with the last checkpoint kept.

    >>> run = vv.train(job, until=0.98, out="run/")  # doctest: +SKIP
    >>> run.scores[-1] >= 0.98  # doctest: +SKIP
    True
    """
    client.prepare()
    progress = progress or SilentProgress()
    _check_request(job, until)
    if out is not None and (team is None or team.node_rank == 0):
        check_out(Path(out), resume)
    asked = None if plan is None else training_plan_of(plan)
    if not resume:
        refuse_contradictions(asked, only, without)
    if team is None and (processes != 1 or layout):
        team = Team(processes=processes, layout=layout if isinstance(layout, str) else str(layout))
    elif team is None and asked is not None and layout_of(asked).processes > 1:
        team = Team(processes=layout_of(asked).processes, layout=str(layout_of(asked)))
    seconds = parse_duration(time)
    choice = Choice(job, seconds, only, without, changed, limits, progress)
    options = {"until": until, "time": time, "only": list(only), "without": list(without), "changed": changed}
    with sending(job):
        if team is not None:
            return _train_together(choice, asked, None if out is None else Path(out), resume, options, team)
        return _train(choice, asked, None if out is None else Path(out), resume, options)


def _train(
    choice: Choice, asked: Plan | None, folder: Path | None, resume: bool, options: Mapping[str, Any]
) -> TrainingRun:
    job, progress, limits = choice.job, choice.progress, choice.limits
    clock = SystemClock()
    began = clock.now()
    earlier = read_plan_of(folder, job) if resume and folder is not None else None
    if earlier is not None:
        earlier = _going_on(with_layout(earlier, Layout()), asked, choice)  # it may have been of several processes
    progress.stage("diagnose", "the original's step")
    found = diagnose(job, limits, until=options["until"])
    seconds, choice = choice.seconds, choice.after(found, clock.now() - began)
    for told in found.notes:
        progress.note(told)
    progress.note(f"a step takes {found.step_seconds * 1e3:.3g} ms; {found.bound_words}: {found.evidence}")
    steps = choice.steps()
    if asked is None and earlier is None and steps is not None and steps * found.step_seconds < seconds:
        whole = show_duration(steps * found.step_seconds)
        progress.note(f"as given, its {steps} steps take about {whole}: less than choosing how to train may (--time)")
    chosen = Chosen(earlier) if earlier is not None else choice.asked(asked) if asked is not None else choice.make()
    search_seconds = clock.now() - began
    started = TrainingRun(
        job.name, chosen.plan, found, chosen.trials, chosen.comparison, chosen.parity, search_seconds,
        conditions=_conditions(job, options), out=folder, noise_ratios=chosen.noise_ratios,
        diagnosis_after=_after(job, chosen.plan, found, limits, progress),
        break_even_steps=break_even_steps(chosen.comparison, search_seconds),
    )  # fmt: skip
    return trained(job, started, options["until"], resume, progress, limits)


def _going_on(earlier: Plan, asked: Plan | None, choice: Choice) -> Plan:
    """The plan of a run that goes on, less the techniques that are not wanted any more. Raises UsageError where another
    plan is asked for."""
    if asked is not None and asked != earlier:
        raise UsageError(
            f"resume (--resume) goes on with the plan that the run had, {earlier}, and plan (--plan) is {asked}; leave "
            "plan out, name techniques to leave out in without (--without), or give another out"
        )
    left = Plan(
        tuple(
            one
            for one in earlier
            if one.name() not in choice.without and (not choice.only or one.name() in choice.only)
        )
    )
    if left != earlier:
        choice.progress.note(f"the run goes on with {left} in place of {earlier}, as was asked for")
    return left


def _train_together(
    choice: Choice, asked: Plan | None, folder: Path | None, resume: bool, options: Mapping[str, Any], team: Team
) -> TrainingRun:
    """The same with a team's processes: with the plan that was asked for, or the one that is found to be fastest."""
    job, progress, limits = choice.job, choice.progress, choice.limits
    clock = SystemClock()
    began = clock.now()
    team = team_for(job, team)
    if team.node_rank == 0:
        listening(team).close()  # a port in use is told before anything is timed
    earlier = _earlier(folder, job, team) if resume and folder is not None else None
    is_open = asked is None and earlier is None and team.is_on_one_machine and team.everyone > 1
    plan = Plan() if is_open else _named(asked, earlier, team)
    progress.stage("diagnose", "the original's step in one process")
    found = diagnose(job, limits, until=options["until"])
    progress.note(f"a step takes {found.step_seconds * 1e3:.3g} ms in one process")
    chosen = Chosen(plan)
    if is_open:
        trying = dataclasses.replace(team, port=0)  # two teams that are timed in turns cannot meet at one port
        choice = dataclasses.replace(choice.after(found, clock.now() - began), team=trying)
        chosen = _chosen_together(choice, found, team)
    options = {**options, "team": team.to_json()}
    started = TrainingRun(
        job.name, chosen.plan, found, chosen.trials, chosen.comparison, chosen.parity, clock.now() - began,
        conditions=_conditions(job, options), out=folder, noise_ratios=chosen.noise_ratios, scaling=chosen.scaling,
        break_even_steps=break_even_steps(chosen.comparison, clock.now() - began),
    )  # fmt: skip
    if team.node_rank > 0:
        return took_part(job, started, limits, team)
    if team.is_on_one_machine and team.everyone > 1:
        layout = layout_of(chosen.plan)
        if layout.processes == 1:
            after = _after(job, chosen.plan, found, limits, progress)
            started = dataclasses.replace(started, diagnosis_after=after)
            return trained(job, started, options["until"], resume, progress, limits)
        others = str(dataclasses.replace(layout, data=1))  # with copies left open, fewer processes can go on
        team = team_for(job, dataclasses.replace(team, processes=layout.processes, layout=others))
    return trained(job, started, options["until"], resume, progress, limits, team)


def _named(asked: Plan | None, earlier: Plan | None, team: Team) -> Plan:
    """The plan that was asked for, or that of the run that goes on, with the team's layout."""
    if asked is None or (not len(asked) and earlier is not None):
        return planned(Plan(), team) if earlier is None else earlier
    return planned(asked, team)


def _chosen_together(choice: Choice, found: Diagnosis, team: Team) -> Chosen:
    """What is fastest of the team's layout, or of all that so many processes can have, and fewer."""
    if team.layout:
        given = Layout.of(team.layout, team.everyone)
        planned(Plan(), team)
        return TogetherChoice(choice, [given], is_given=True).make()
    counts = [count for count in range(2, team.everyone + 1) if team.everyone % count == 0]
    layouts = [
        layout for count in counts for layout in Layout.every(count) if count == team.everyone or _copies(layout)
    ]
    machine = machine_of("auto")
    at_once = len(machine.gpus) if found.device == "cuda" else machine.cores_allowed
    return TogetherChoice(choice, ranked(layouts, found, at_once), is_given=False).make()


def _copies(layout: Layout) -> bool:
    """Whether a layout is of copies alone: with fewer processes too, these tell how a job scales."""
    return layout.data == layout.processes


def _earlier(folder: Path, job: Training, team: Team) -> Plan | None:
    """The plan of a run that goes on: as it was, where as many processes are asked for as then and no other layout."""
    plan = read_plan_of(folder, job)
    if plan is None:
        return None
    is_same = processes_of(folder) == team.processes and not team.layout
    return plan if is_same else planned(plan, team)


def _after(job: Training, plan: Plan, before: Diagnosis, limits: Limits, progress: Progress) -> Diagnosis | None:
    """The diagnosis of the plan that trains; None for the original, and where its worker fails."""
    if not len(plan):
        return None
    progress.stage("diagnose", f"the step of {plan}")
    try:
        return _diagnosed(job, plan, before.flops, limits)
    except (WorkerFailure, UsageError) as failure:  # such as an iterator that ends before caches are full
        progress.note(f"where the time of the plan's step goes is not known: {failure}")
        return None


def _conditions(job: Training, options: Mapping[str, Any]) -> dict[str, Any]:
    """What the run's numbers depend on: the machine, what runs on it, the job's numbers, and what was asked for."""
    numbers = {name: getattr(job, name) for name in ("batch_size", "epochs", "seed", "shuffle")}
    numbers["model"] = _place_of(job.model)
    machine = machine_of("auto").to_json()
    return {**environment.snapshot(), "machine": machine, "job": numbers, "options": dict(options)}


def _place_of(factory: Any) -> str:
    """Where the factory of the model is found, whose state model.safetensors holds: its file, and its name in it."""
    named = getattr(factory, "func", factory)  # of a functools.partial
    named = named if hasattr(named, "__qualname__") else type(named)
    try:
        file = inspect.getsourcefile(named)
    except TypeError:  # of what is no code
        file = None
    return f"{file or named.__module__}:{named.__qualname__}"


def _check_request(job: Training, until: float | None) -> None:
    checked(job)
    if until is not None and not math.isfinite(until):
        raise UsageError(f"until is {until}, a score that is never reached; allowed is a finite number, or none")
    if until is not None and job.evaluate is None:
        raise UsageError(
            "until was given, and the job has no evaluate; give evaluate=(model) -> score, higher is better"
        )
