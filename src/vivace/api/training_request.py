"""A training job as the public verbs take it: checked, and with errors that name the part that is at fault."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

from vivace.core.errors import UnsupportedModel, UsageError
from vivace.core.training.job import Training
from vivace.measure import parcel


def checked(job: object) -> Training:
    """The job. Raises UsageError for what is none."""
    if not isinstance(job, Training):
        raise UsageError(f"job is a {type(job).__name__}; allowed is a vivace.Training(model, loss, optimizer, data)")
    return job


@contextlib.contextmanager
def sending(job: Training) -> Iterator[None]:
    """Inside, a job is sent to several worker processes: its big tensors are written once, and mapped by each. Where it
    cannot be sent, raise UsageError that names which part of it, and why.
    """
    try:
        with parcel.shelved():
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
