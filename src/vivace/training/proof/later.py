"""One step of a training proved in the midst of it: the rig that trains beside the original, from where it stands."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from vivace.core.errors import StepChanged
from vivace.core.plan import Plan
from vivace.core.technique import Effect, Stage, Technique
from vivace.core.training.job import Training
from vivace.core.training.parity import Agreement, Kind
from vivace.core.training.rig import Context, Rig
from vivace.training.agreement import FLOAT32_ROUNDOFF, GROWTH, VANISHING, Judge
from vivace.training.examine import STILLED, Examined, Originals, in_float64, same, worst_first
from vivace.training.feed import feed_of
from vivace.training.loop import Last, Loop
from vivace.training.proof import by_design, drawn
from vivace.training.proof.by_design import First
from vivace.training.proof.in_a_row import InARow, worst_of
from vivace.training.proof.snapshot import Key, Snapshot
from vivace.training.proof.together import Unproved, agreed, of_all
from vivace.training.rig import assemble
from vivace.training.trace import Trace, stilled, trace, updated_by

STEPS_OF_ONE = 6
"""The original's and the plan's, and two in float64, which take twice as long."""
FAILS = "the original's step fails beside it"


def proved_again(
    job: Training,
    plan: Plan,
    loop: Loop,
    changed: Mapping[Key, Any],
    first: First | None = None,
    fresh: Callable[[], Rig] | None = None,
    further: int = 0,
) -> Examined:
    """Compare the step that a training's own rig takes on its last batch with the original's, tensor by tensor.

    It is the very rig that trains, with whatever it has counted, recorded or compiled: a fresh one would not show what
    goes wrong after some steps. Both start from the run's weights, optimizer's state and attributes, and draw the same
    random numbers; `changed` are attributes that the job's own code has set (`snapshot.set_by`). Gradients, buffers and
    updates are compared as `examine` does. The run is as it was afterwards, to the bit. Of a plan that changes the
    computation by design, `first` says how far off its first steps were, and `fresh` makes a rig (see `by_design`).
    Of others, so many `further` steps are taken after it on the same batch, and their updates compared (`in_a_row`).

    Where several processes train, all call this: each takes the original's step by itself, on the whole batch and with
    the whole tensors, so that none waits longer for the others than in a step, and all know what any of them found.
    Raises Unproved where nothing can be compared, and StepChanged as the rig's step does.
    """
    last = loop.last()
    if last is None:
        raise Unproved("no step was taken since it was resumed")
    with agreed(loop.rig.ranks, "what the run holds cannot be copied"):  # modules may refuse that in any way
        snapshot = Snapshot(loop.rig, changed, job.loss)
    try:
        found = _compared(job, plan, loop, last, snapshot, first or {}, fresh)
        if further <= 0 or plan.training_effect is Effect.CHANGED:
            return found
        try:
            more = _followed(job, loop, last, changed, further)
        except Unproved as why:
            return dataclasses.replace(found, notes=(*found.notes, str(why)))
        return dataclasses.replace(found, agreements=worst_first([*found.agreements, *more]))
    except (Unproved, StepChanged):
        raise
    except Exception as error:  # the user's code may raise anything, and the training must not end by a proof
        if loop.rig.ranks is not None:  # the others wait for this one, as in any step of the training that fails
            raise
        raise Unproved(f"{FAILS}: {type(error).__name__}: {error}") from error
    finally:
        snapshot.restore()


def steps_of_one(plan: Plan, rig: Rig) -> int:
    """About how many of the original's steps such a comparison takes as long as."""
    return drawn.STEPS_OF_ONE if _has_other_masks(plan, rig) else STEPS_OF_ONE


def _check_comparable(job: Training, plan: Plan, rig: Rig) -> None:
    if not draws_otherwise(job, plan, rig):
        return
    if rig.ranks is not None or rig.scaling is not None:
        raise Unproved("its compiled code draws other dropout masks than the original")
    if plan.training_effect is Effect.CHANGED:
        raise Unproved("the plan changes the computation by design, and its compiled code draws other dropout masks")


def draws_otherwise(job: Training, plan: Plan, rig: Rig) -> bool:
    """Whether a step draws masks that are not the original's, and cannot be taken without them."""
    return _has_other_masks(plan, rig) and bool(stilled(assemble(job).model))


def _has_other_masks(plan: Plan, rig: Rig) -> bool:
    """Whether dropout can neither stay on, as other masks are drawn, nor go off, as the step is recorded with it."""
    compiled = [one for one in plan if one.stage in (Stage.COMPILE, Stage.TARGET)]
    return bool(compiled) and (any(map(_draws_anew, plan)) or hasattr(rig.model, "standing_in"))


def _draws_anew(technique: Technique) -> bool:
    is_other = technique.stage is Stage.COMPILE and technique.effect is not Effect.EXACT
    return is_other or technique.unit_roundoff > FLOAT32_ROUNDOFF


def _compared(
    job: Training,
    plan: Plan,
    loop: Loop,
    last: Last,
    snapshot: Snapshot,
    first: First,
    fresh: Callable[[], Rig] | None,
) -> Examined:
    rig, steps = loop.rig, loop.position.steps
    roundoff = max((technique.unit_roundoff for technique in plan), default=FLOAT32_ROUNDOFF)
    still = any(map(_draws_anew, plan)) and not _has_other_masks(plan, rig)
    snapshot.gather()
    batch, take = _last_batch(rig, last)
    masks: tuple[Context, ...] = ()
    if rig.ranks is None and draws_otherwise(job, plan, rig):
        _check_comparable(job, plan, rig)
        gradients: Any = rig.gradients
        if not hasattr(gradients, "masks"):
            found = list(_of_batch(job, rig, last, batch))
            return _over_draws(job, rig, snapshot, batch, take, steps, roundoff, found)
        trace(rig, batch, job.seed + steps, take)  # so that it knows by whom such a step's masks are drawn
        snapshot.restore()
        masks = gradients.masks()

    def standing(original: Rig) -> Rig:
        return snapshot.into(original).replace(around=masks)

    with agreed(rig.ranks, FAILS):
        _check_comparable(job, plan, rig)
        originals = Originals(
            lambda: standing(assemble(job)), lambda: standing(in_float64(job)), roundoff, still, job.seed
        )
        if still:
            stilled(rig.model)
        found = list(_of_batch(job, rig, last, batch))
        taken = originals.taken(snapshot.state, batch, job.seed + steps, steps, is_first=True)
    skipped = 0 if rig.scaling is None else rig.scaling.skipped
    mine = batch if rig.ranks is None else rig.ranks.cut(batch)
    other = trace(rig, mine, taken.seed, take)
    with agreed(rig.ranks, FAILS):
        if rig.scaling is not None and rig.scaling.skipped > skipped:
            raise Unproved("the step was left out, as its scaled gradients were not finite")
        found += originals.beside(taken, other)
        found = [one for one in found if not _is_rounding(one)]
        if plan.training_effect is Effect.CHANGED:
            again = None if fresh is None or rig.ranks is not None else lambda: trace(
                snapshot.into(fresh()), batch, taken.seed
            )  # fmt: skip
            found = by_design.judged(found, first, other, again, steps)
        notes = [*([STILLED] if originals.off else []), *originals.notes()]
    told = of_all(rig.ranks, found)
    return Examined(worst_first(told), originals.reference, tuple(notes))


def _followed(job: Training, loop: Loop, last: Last, changed: Mapping[Key, Any], further: int) -> list[Agreement]:
    """What steps that follow on the same batch make of the weights and of what the optimizer keeps."""
    rig = loop.rig
    whole, take = _last_batch(rig, last)
    mine = whole if rig.ranks is None else rig.ranks.cut(whole)
    row = InARow(job, rig, loop.position.steps, changed)
    found = [one for _ in range(further) for one in row.step(mine, take, whole)]
    return of_all(rig.ranks, worst_of(found))


def _over_draws(
    job: Training,
    rig: Rig,
    snapshot: Snapshot,
    batch: Any,
    take: Callable[[], Tensor] | None,
    steps: int,
    roundoff: float,
    found: list[Agreement],
) -> Examined:
    """The same where masks differ: gradients over many draws, and the update beside what the original's optimizer
    makes of the gradients that the plan's step has left."""
    own = snapshot.into(assemble(job))
    held = Snapshot(own, {}, job.loss)

    def original(seed: int) -> Trace:
        held.restore()
        return trace(own, batch, seed)

    def live(seed: int) -> Trace:
        snapshot.restore()
        return trace(rig, batch, seed, take)

    seed = job.seed + steps
    found += drawn.compared(original, live, seed, steps, roundoff)
    both = original(seed), live(seed)
    made = [updated_by(snapshot.into(in_float64(job)), snapshot.state, one) for one in both]
    found += Judge(roundoff).updates(steps, *both, *made)
    told = [one for one in found if not _is_rounding(one)]
    note = f"masks differ, so gradients are compared as the means of {drawn.DRAWS} draws, and by their size"
    return Examined(worst_first(told), f"float32, over {drawn.DRAWS} draws", (note,))


def _last_batch(rig: Rig, last: Last) -> tuple[Any, Callable[[], Tensor] | None]:
    """A copy of the whole batch, and how the rig takes a step on it where it cuts batches by itself."""
    if rig.ranks is not None and last.batch is not None:
        return rig.ranks.joined(last.batch), None
    if last.batch is not None:
        return pytree.tree_map(lambda leaf: leaf.clone() if torch.is_tensor(leaf) else leaf, last.batch), None
    several = rig.several
    assert several is not None
    if rig.ranks is not None:
        raise Unproved("each process cuts its batches by itself")
    batch = next(iter(rig.feed.epoch(last.epoch, skip=last.number)))

    def take() -> Tensor:
        losses = several(last.epoch, last.number, 1)
        if losses is None:
            raise Unproved("the last batch is not cut from the table any more")
        return losses[0]

    return batch, take


def _of_batch(job: Training, rig: Rig, last: Last, batch: Any) -> list[Agreement]:
    """Whether the batch is the one that the data give now, where every sample is cached, so that nobody else reads the
    data meanwhile and they give the same whenever they are asked."""
    feed: Any = rig.feed
    if (
        not last.is_placed
        or not job.has_samples
        or job.augment is not None
        or not hasattr(feed, "reads")
        or feed.reads()
    ):
        return []
    own = next(iter(feed_of(job).epoch(last.epoch, skip=last.number)))
    agreement = Agreement(Kind.BATCH, f"batch {last.number} of epoch {last.epoch}", last.number, 1.0, 0.0, 0.0, 0.0)
    if same(own, batch):
        return [agreement]
    told = "the data give other values by now than the plan's feed does"
    return [dataclasses.replace(agreement, cosine=0.0, error=float("inf"), reason=told)]


def _is_rounding(one: Agreement) -> bool:
    """Whether an update is so small beside its weights that the original's own is nothing but rounding, and the plan's
    no further off: it says nothing."""
    return one.kind is Kind.UPDATE and not one.reason and one.noise > VANISHING and one.error <= GROWTH * one.noise
