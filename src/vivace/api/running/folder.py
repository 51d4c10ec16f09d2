"""What a run's folder keeps beside its checkpoints: the plan, and of which job it is."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from vivace.artifact.save import check_place
from vivace.core import registry
from vivace.core.documents import strict_json
from vivace.core.errors import UsageError
from vivace.core.plan import Plan, read_plan
from vivace.core.training.job import Training
from vivace.core.training.run import TrainingRun
from vivace.devices.disk import PART, write_whole
from vivace.training.checkpoint import settings_of
from vivace.training.feed import length_of
from vivace.training.keeping import files
from vivace.training.rig import seeded

MODEL, PLAN, CHECKPOINTS, ACCOUNT = "model.safetensors", "plan.json", "checkpoints", "account.json"
SCHEMA = 1


def identity(job: Training) -> str:
    """What checkpoints must be of: the job's name and numbers, the names and shapes of its model's tensors, the
    settings of its optimizer, and the length of its data, where that is known."""
    with seeded(job.seed):
        model = job.model()
        groups = settings_of(job.optimizer(model.parameters()))
    shapes = {name: list(getattr(value, "shape", ())) for name, value in model.state_dict().items()}
    numbers = [job.name, job.batch_size, job.epochs, job.seed, job.shuffle, shapes, groups, length_of(job.data)]
    return hashlib.sha256(json.dumps(numbers).encode()).hexdigest()[:32]


def read_plan_of(folder: Path, job: Training) -> Plan | None:
    """The plan of a run that is to go on; None where there is none. Raises UsageError where it is of another job."""
    file = folder / PLAN
    if not file.is_file():
        return None
    try:
        note = strict_json.loads(file.read_text(encoding="utf-8"))
        plan, of = read_plan(note["plan"], registry.techniques()), note["job"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{file} cannot be read ({error}); give another out, or leave resume out") from error
    if of != identity(job):
        raise UsageError(f"{file} is of another job, or this one has changed; give another out, or leave resume out")
    return plan


def processes_of(folder: Path) -> int:
    """How many processes a run was asked to be of, whether or not that many trained."""
    found = strict_json.loads((folder / PLAN).read_text(encoding="utf-8")).get("processes", 1)
    return found if isinstance(found, int) else 1


def has_checkpoint(folder: Path) -> bool:
    """Whether a run's folder holds something to go on from."""
    return files.newest(folder / CHECKPOINTS) is not None


def write_plan(folder: Path, job: Training, run: TrainingRun) -> None:
    """Keep what a run that goes on must know: the plan, of which job, and how many processes were asked for."""
    asked_for = (run.conditions.get("options", {}).get("team") or {}).get("processes", 1)
    note = {"schema_version": SCHEMA, "job": identity(job), "plan": run.plan.to_json(), "processes": asked_for}
    write_whole(folder / PLAN, json.dumps(note, indent=2, allow_nan=False) + "\n")


def check_out(folder: Path, resume: bool) -> None:
    """Raise where a run cannot be kept in a folder, before anything is done for it: UsageError where it holds another
    one, or is none; EnvironmentFault where nobody may write there. Nothing is made there."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(
            f"out (--out) is {folder}, which is a file; allowed is a folder, which is made if it is not there"
        )
    keep = folder / CHECKPOINTS
    if not resume and keep.is_dir() and any(keep.iterdir()):
        raise UsageError(
            f"{folder} holds checkpoints of a training; go on with it (resume=True, --resume), give another out, or "
            "remove it"
        )
    check_place(folder)
    if folder.is_dir():
        with alone_in(folder):
            pass


def clear_unfinished(folder: Path) -> None:
    """Remove what a process that was stopped had not written to the end: a model or a checkpoint is whole or not there.
    Nobody may be writing into the folder."""
    (folder / f"{MODEL}.{PART}").unlink(missing_ok=True)
    files.clear_unfinished(folder / CHECKPOINTS)


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """No other run is kept in a folder meanwhile. Raises UsageError where one is. The system takes the lock back from a
    process that is killed."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError(
            f"another run is training into {folder} now; wait until it is over, or give another out (--out)"
        ) from None
    except OSError:  # of a file system that locks no folders
        return
