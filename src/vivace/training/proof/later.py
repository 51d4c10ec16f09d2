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
from vivace.core.training.rig import Rig
from vivace.training.agreement import FLOAT32_ROUNDOFF, GROWTH, VANISHING
from vivace.training.examine import STILLED, Examined, Originals, in_float64, same, worst_first
from vivace.training.feed import feed_of
from vivace.training.loop import Last, Loop
from vivace.training.proof.snapshot import Key, Snapshot
from vivace.training.rig import assemble
from vivace.training.trace import stilled


class Unproved(Exception):
    """Why a step cannot be compared here."""


def proved_again(job: Training, plan: Plan, loop: Loop, changed: Mapping[Key, Any]) -> Examined:
    """Compare the step that a training's own rig takes on its last batch with the original's, tensor by tensor.

    It is the very rig that trains, with whatever it has counted, recorded or compiled: a fresh one would not show what
    goes wrong after some steps. Both start from the run's weights, optimizer's state and attributes, and draw the same
    random numbers; `changed` are attributes that the job's own code has set (`snapshot.set_by`). Gradients, buffers and
    updates are compared as `examine` does. The run is as it was afterwards, to the bit.

    Raises Unproved where nothing can be compared, and StepChanged as the rig's step does.
    """
    last = loop.last()
    if last is None:
        raise Unproved("no step was taken since it was resumed")
    if loop.rig.ranks is not None:
        raise Unproved("several processes train together")
    try:
        snapshot = Snapshot(loop.rig, changed, job.loss)
    except Exception as error:  # what the user's modules keep may refuse to be copied in any way
        raise Unproved(f"what the run holds cannot be copied: {type(error).__name__}: {error}") from error
    try:
        _check_comparable(job, plan, loop.rig)
        return _compared(job, plan, loop, last, snapshot)
    except (Unproved, StepChanged):
        raise
    except Exception as error:  # the user's code may raise anything, and the training must not end by a proof
        raise Unproved(f"the original's step fails beside it: {type(error).__name__}: {error}") from error
    finally:
        snapshot.restore()


def _check_comparable(job: Training, plan: Plan, rig: Rig) -> None:
    if plan.training_effect is Effect.CHANGED:
        raise Unproved("the plan changes the computation by design, and was judged by its losses")
    if _has_other_masks(plan, rig) and stilled(assemble(job).model):
        raise Unproved("its compiled code draws other dropout masks than the original")


def _has_other_masks(plan: Plan, rig: Rig) -> bool:
    """Whether dropout can neither stay on, as other masks are drawn, nor go off, as the step is recorded with it."""
    compiled = [one for one in plan if one.stage in (Stage.COMPILE, Stage.TARGET)]
    return bool(compiled) and (any(map(_draws_anew, plan)) or hasattr(rig.model, "standing_in"))


def _draws_anew(technique: Technique) -> bool:
    is_other = technique.stage is Stage.COMPILE and technique.effect is not Effect.EXACT
    return is_other or technique.unit_roundoff > FLOAT32_ROUNDOFF


def _compared(job: Training, plan: Plan, loop: Loop, last: Last, snapshot: Snapshot) -> Examined:
    rig, steps = loop.rig, loop.position.steps
    roundoff = max((technique.unit_roundoff for technique in plan), default=FLOAT32_ROUNDOFF)
    still = any(map(_draws_anew, plan)) and not _has_other_masks(plan, rig)
    originals = Originals(
        lambda: snapshot.into(assemble(job)), lambda: snapshot.into(in_float64(job)), roundoff, still, job.seed
    )
    if still:
        stilled(rig.model)
    batch, take = _last_batch(rig, last)
    found = list(_of_batch(job, rig, last, batch))
    skipped = 0 if rig.scaling is None else rig.scaling.skipped
    found += originals.compared(rig, snapshot.state, batch, job.seed + steps, steps, is_first=True, take=take)
    if rig.scaling is not None and rig.scaling.skipped > skipped:
        raise Unproved("the step was left out, as its scaled gradients were not finite")
    told = [one for one in found if not _is_rounding(one)]
    notes = [*([STILLED] if originals.off else []), *originals.notes()]
    return Examined(worst_first(told), originals.reference, tuple(notes))


def _last_batch(rig: Rig, last: Last) -> tuple[Any, Callable[[], Tensor] | None]:
    """A copy of the batch, and how the rig takes a step on it where it cuts batches by itself."""
    if last.batch is not None:
        return pytree.tree_map(lambda leaf: leaf.clone() if torch.is_tensor(leaf) else leaf, last.batch), None
    several = rig.several
    assert several is not None
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
    if not job.has_samples or job.augment is not None or not hasattr(feed, "reads") or feed.reads():
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
