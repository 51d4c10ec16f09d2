"""A training job as the public verbs take it: checked, and with errors that name the part that is at fault."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator

from vivace.codegen.build import LIBRARIES
from vivace.core.errors import UnsupportedModel, UsageError
from vivace.core.training.job import Training
from vivace.measure import parcel
from vivace.measure.child_environment import child_environment, of_every_worker


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
