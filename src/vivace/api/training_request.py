"""A training job and its plan as the public verbs take them: checked, and with errors that name what is at fault."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vivace.api.request import machine_of, plan_of
from vivace.codegen.build import LIBRARIES
from vivace.core.errors import EnvironmentFault, UnsupportedModel, UsageError, VivaceError, WorkerFailure
from vivace.core.facts import OF_THE_MACHINE, Fact
from vivace.core.measurement import Outcome
from vivace.core.plan import Plan
from vivace.core.registry import missing_package
from vivace.core.training.job import Training
from vivace.measure import parcel
from vivace.measure.child_environment import child_environment, of_every_worker
from vivace.techniques.parallel.layouts import layout_of


def checked(job: object) -> Training:
    """The job. Raises UsageError for what is none."""
    if not isinstance(job, Training):
        raise UsageError(f"job is a {type(job).__name__}; allowed is a vivace.Training(model, loss, optimizer, data)")
    return job


@contextlib.contextmanager
def sending(job: Training) -> Iterator[None]:
    """Inside, a job is sent to several worker processes: its big tensors are written once, and mapped by each; what one
    compiles of it, the others load. Where it cannot be sent, raise UsageError that names which part of it, and why.
    """
    try:
        with parcel.shelved(), compiled_once():
            yield
    except UnsupportedModel as error:
        for field in dataclasses.fields(job):
            reason = parcel.why_not_sent(getattr(job, field.name))
            if reason is not None:
                raise UsageError(
                    f"the job's {field.name} cannot be sent to a worker process: {reason}; allowed is what pickles: "
                    "open files, locks, generators and connections where they are used, such as in __getitem__, not "
                    "in __init__ or at the top of the file"
                ) from error
        raise


@contextlib.contextmanager
def compiled_once() -> Iterator[None]:
    """Inside, workers keep the libraries of generated source that they compile for each other, unless the environment
    says where they do, or, by an empty name, that they do not."""
    if LIBRARIES in child_environment({}):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="vivace-") as name, of_every_worker({LIBRARIES: name}):
        yield


def training_plan_of(plan: Plan | Sequence[str | Mapping[str, Any]]) -> Plan:
    """`plan_of`, of a plan for a training. Raises UsageError where a technique of it does not act on training,
    EnvironmentFault where the package of one is not installed."""
    found = plan_of(plan)
    for technique in found:
        if not technique.trains():
            raise UsageError(
                f"plan (--plan) asks for {technique.name()}, which acts on models that are run (`vivace optimize`) and "
                "not on their training; leave it out: `vivace techniques` lists what each technique does"
            )
        missing = missing_package(type(technique))
        if missing:
            raise EnvironmentFault(f"plan (--plan) asks for {technique.name()}, which {missing}")
    return found


def as_asked(failure: WorkerFailure, plan: Plan) -> VivaceError:
    """The error for who asked for a plan that a worker says cannot be used: UsageError where it does not fit the job,
    EnvironmentFault where the machine lacks what it needs. What failed in another way is that failure itself."""
    if failure.outcome is not Outcome.UNSUPPORTED:
        return failure
    culprit = next((one for one in plan if one.name() == failure.reason.partition(":")[0]), None)
    if culprit is None and layout_of(plan).processes > 1:
        return UsageError(f"{failure.reason}; give another layout (--layout), or leave it out")
    needs = frozenset[Fact]() if culprit is None else culprit.needs
    lacks = " and ".join(sorted(fact.value for fact in needs & OF_THE_MACHINE - machine_of("auto").facts()))
    if lacks:
        return EnvironmentFault(f"the plan {plan} needs {lacks}, which is not on this machine: {failure.reason}")
    instead = "name others" if culprit is None else f"leave {culprit.name()} out"
    return UsageError(
        f"the plan {plan} cannot be used for this job: {failure.reason}; {instead} in plan (--plan), or give none, and "
        "what fits is found"
    )
