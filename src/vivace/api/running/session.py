"""The training itself, in a worker that is asked how far it is; checkpoints in between, the model at the end."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

from vivace.api.parity import TrainsOtherwise, proved
from vivace.api.running.drive import FIRST_STEPS, Drive, full_disk
from vivace.api.running.earlier import with_earlier, write_chosen
from vivace.api.running.folder import (
    ACCOUNT,
    CHECKPOINTS,
    MODEL,
    alone_in,
    check_out,
    clear_unfinished,
    identity,
    write_plan,
)
from vivace.api.running.leaving import Leaving, LeavingAtFirst, without_recording
from vivace.api.running.proofs import LaterProofs, StepDiffers
from vivace.api.together.restarts import Restarts
from vivace.api.together.team import QUIET, RankHand, diagnosed, open_ranks
from vivace.artifact.save import disk_errors
from vivace.core.errors import DiskFull, StepChanged, UsageError, WorkerFailure
from vivace.core.measurement import Outcome
from vivace.core.plan import Plan
from vivace.core.training.job import Training
from vivace.core.training.run import Rank, Scaling, TrainingRun
from vivace.devices.disk import write_whole
from vivace.distributed.layout import Layout
from vivace.distributed.team import Team
from vivace.measure.process import Limits, Phase, Worker
from vivace.report.pages import page_of
from vivace.report.progress import Progress
from vivace.report.reading import read_training
from vivace.report.results import PAGE
from vivace.report.training import RUN, training_document
from vivace.training.keeping.files import back_to_proved, newest
from vivace.training.keeping.model_file import load_model
from vivace.training.rig import seeded

ENTRY = "vivace.training.service:open_loop"
FOREVER_SECONDS = 3e7
"""How long a machine may take part in what another one leads: a year."""


def trained(
    job: Training,
    run: TrainingRun,
    until: float | None,
    resume: bool,
    progress: Progress,
    limits: Limits,
    team: Team | None = None,
) -> TrainingRun:
    """Train with the plan of `run`, and return it with what came of it and with the model. With a `team` that is done
    by its processes, after a proof that their steps are those of one.

    Where a step that was recorded becomes another one, what had recorded it is taken out of the plan, and the training
    begins again: its steps may have been others for a while, and what they depend on is in no checkpoint. Where a step
    of the run's own is proved not to be the original's, what makes it another is taken out, and the training goes on
    from the last checkpoint that was proved. Of several processes the layout stays: where none of the other techniques
    was it, UsageError says how to go on, or, of their first steps, what of the job they cannot share.
    """
    leaving, at_first = Leaving(1 if team is None else team.everyone), LeavingAtFirst()
    if resume and run.out is not None:
        run = with_earlier(run, run.out)
    with tempfile.TemporaryDirectory(prefix="vivace-") as name:
        home = run.out or Path(name) / "run"
        check_out(home, resume)
        is_again = False
        while True:
            try:
                return _session(job, run, until, resume, progress, limits, team, home, is_again)
            except StepChanged as change:
                run, kept = without_recording(run, change), 0
                shutil.rmtree(home / CHECKPOINTS, ignore_errors=True)
            except TrainsOtherwise as found:
                run = at_first.after(run, found)
                progress.note(run.dropped[-1])
                continue
            except StepDiffers as found:
                kept = back_to_proved(home / CHECKPOINTS, found.most)
                run = leaving.after(run, found, kept)
                if leaving.is_stuck:
                    write_chosen(home, run)
                    raise UsageError(leaving.how_to_go_on(home, kept)) from None
            progress.note(run.dropped[-1])
            is_again = True
            resume = kept > 0
            if not resume:
                (home / ACCOUNT).unlink(missing_ok=True)


def _session(
    job: Training,
    run: TrainingRun,
    until: float | None,
    resume: bool,
    progress: Progress,
    limits: Limits,
    team: Team | None,
    home: Path,
    is_again: bool,
) -> TrainingRun:
    folder, held = tempfile.TemporaryDirectory(prefix="vivace-"), contextlib.ExitStack()
    with folder as name, disk_errors(run.out or Path(name)), held:
        home.mkdir(parents=True, exist_ok=True)
        held.enter_context(alone_in(home))
        held.callback(clear_unfinished, home)
        keep = home / CHECKPOINTS
        with _kept_where_full(keep):
            write_plan(home, job, run)
            write_chosen(home, run)
        variables, fresh = (None, False) if team is None else (QUIET, True)
        with Worker(Path(name) / "worker", limits, variables, fresh=fresh) as worker:
            asked = {"keep": str(keep.absolute()), "identity": identity(job)}
            if team is None:
                worker.open(ENTRY, asked, (job, run.plan), Phase.LOAD)
                hand: Worker | RankHand = worker
            else:
                progress.stage("launch", f"{team.everyone} processes, {Layout.of(team.layout, team.everyone)}")
                hand = open_ranks(worker, team, job, run.plan, asked)
                progress.stage("prove", f"{run.plan}: steps of {team.everyone} processes against one")
                run = dataclasses.replace(run, parity=proved(hand, run.plan))
                run = dataclasses.replace(run, diagnosis_after=diagnosed(hand, run.diagnosis))
            restarts = Restarts(hand, progress, functools.partial(_proved_again, plan=run.plan))
            proofs = LaterProofs(run, None if team is None else team.processes)
            final = Drive(job, hand, progress, until, home / ACCOUNT, restarts, proofs, is_again).run(run)
            if team is not None:
                ranks = tuple(Rank(**one) for one in hand.call("readings", {}, Phase.CONVERT))
                seen = scaling_of(final, team) if len(ranks) == team.everyone else None  # none where machines have left
                final = dataclasses.replace(final, scaling=run.scaling or seen, ranks=ranks)
            with _kept_where_full(keep):
                hand.call("write_model", {"to": str((home / MODEL).absolute())}, Phase.CONVERT)
        with seeded(job.seed):
            model = job.model()
        load_model(model, home / MODEL)
        final = dataclasses.replace(final, model=model.eval())
        text = training_document(final).to_text()
        with _kept_where_full(keep):
            write_whole(home / RUN, text)
            write_whole(home / PAGE, page_of(read_training(text)))  # what `vivace report` writes again
        return final


@contextlib.contextmanager
def _kept_where_full(keep: Path) -> Iterator[None]:
    """Raise DiskFull where the disk is full before the first step or after the last, and say what is kept."""
    try:
        yield
    except (WorkerFailure, DiskFull) as failure:
        told = full_disk(failure)
        if told is None:
            raise
        kept = newest(keep)
        how = "make room, or give another out (--out)"
        if kept is not None:
            how = f"{kept} is kept: make room, and go on with resume (--resume), which writes what is left"
        raise DiskFull(f"{told}; {how}") from None


def _proved_again(ranks: RankHand, plan: Plan) -> None:
    """Raise UsageError where the steps of processes that go on with what others have trained are not those of one."""
    try:
        proved(ranks, plan)
    except TrainsOtherwise as found:  # which is told of what has not begun yet
        raise UsageError(str(found)) from found


def scaling_of(run: TrainingRun, team: Team) -> Scaling | None:
    """The step of all processes, the median of what was seen but for the first steps, beside that of one; None where
    too little was seen, or processes have left."""
    seen = [span.step_seconds for span in run.course.spans if span.step_seconds is not None and span.step > FIRST_STEPS]
    if not seen or run.restarts or team.everyone < 2:
        return None
    return Scaling(team.everyone, run.diagnosis.step_seconds, statistics.median(seen))


def took_part(job: Training, run: TrainingRun, limits: Limits, team: Team) -> TrainingRun:
    """Train on a machine other than the first of a team, which tells the processes here what to do; the run as it was.

    Raises WorkerFailure where the team has ended without being told to.
    """
    with tempfile.TemporaryDirectory(prefix="vivace-") as name, Worker(Path(name), limits, QUIET) as worker:
        keep = (run.out or Path(name)) / CHECKPOINTS
        open_ranks(worker, team, job, run.plan, {"keep": str(keep.absolute()), "identity": identity(job)})
        reason = worker.call("attend", {}, Phase.CONVERT, seconds=FOREVER_SECONDS)
    if reason:
        raise WorkerFailure(Outcome.CRASHED, reason)
    return run
