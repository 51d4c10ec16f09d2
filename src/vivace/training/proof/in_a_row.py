"""Steps taken one after the other, as a training takes them: what each makes of the weights and of what the optimizer
keeps, beside what the job's own optimizer makes of the same gradients from the same place.

One step does not show an update that is left out now and then, one that forgets what the step before has kept, or one
that goes by the learning rate of another step. Every step starts where the plan's own rig is, so that nothing adds up.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from vivace.core.training.job import Training
from vivace.core.training.parity import Agreement, Kind
from vivace.core.training.rig import Rig
from vivace.training.agreement import FLOAT32_ROUNDOFF, GROWTH, MOST_ALLOWED, SMALLEST, UPDATE_FLOOR, cosine
from vivace.training.feed import feed_of
from vivace.training.proof.snapshot import Key, Snapshot
from vivace.training.proof.together import agreed
from vivace.training.rig import assemble
from vivace.training.trace import Trace, trace, updated_by, wide

SLOWED = 0.5
"""What the learning rate is multiplied with in the middle of the steps at the start, as a schedule would do."""
MISSING, EXTRA = "there is none, and the original has one", "there is one, and the original has none"
FAILS = "updates in a row cannot be compared"
Take = Callable[[], Tensor]


class InARow:
    """Steps of a rig that go on from where it is, each beside the update of the original's own optimizer, which is
    given the gradients that the rig has left. `number` is what the first of them is called, `changed` what the job's
    own code has set (`snapshot.set_by`). Where several processes train, all take them."""

    def __init__(self, job: Training, rig: Rig, number: int, changed: Mapping[Key, Any] | None = None) -> None:
        self._job = job
        self._rig = rig
        self._number = number
        self._changed = changed or {}
        self._original: Rig | None = None
        self._before: Snapshot | None = None

    def fed(self, steps: int) -> list[Agreement]:
        """So many steps on batches of the rig's own job, the second half of them at a smaller learning rate. The rig,
        and what the loss counts, is as it was afterwards. Raises Unproved as `step` does."""
        batches = itertools.cycle(itertools.islice(feed_of(self._job).epoch(0), steps))
        found: list[Agreement] = []
        began = self._before = self._stand()
        try:
            for step in range(steps):
                if step == steps // 2:
                    self._slow()
                found += self.step(next(batches))
        finally:
            began.restore()
            self._before = None
        return worst_of(found)

    def step(self, batch: Any, take: Take | None = None, whole: Any = None) -> list[Agreement]:
        """One step on a batch (`take`, where the rig takes it otherwise than by `train_step`); `whole` is that of all
        processes, where it is another one. Raises Unproved where the job's optimizer cannot be copied or asked again.
        """
        before = self._before or self._stand()
        scaling = self._rig.scaling
        skipped = 0 if scaling is None else scaling.skipped
        number, seed = self._number, self._job.seed + self._number
        made = trace(self._rig, batch, seed, take)
        self._before, self._number = self._stand(), number + 1
        if scaling is not None and scaling.skipped > skipped:
            return []  # its scaled gradients were not finite
        with agreed(self._rig.ranks, FAILS):
            found = self._beside(before, made, number)
            again = batch if whole is None else whole
            is_repeatable = all(one.holds for one in found) or self._is_repeatable(before, again, seed)
        return found if is_repeatable else []

    def _beside(self, before: Snapshot, made: Trace, number: int) -> list[Agreement]:
        self._original = before.into(self._original or assemble(self._job))
        own = updated_by(self._original, before.state, made)
        return [*_updates(own, made, before.state, number), *self._states(number)]

    def _stand(self) -> Snapshot:
        with agreed(self._rig.ranks, FAILS):
            found = Snapshot(self._rig, self._changed, self._job.loss)
        found.gather()
        return found

    def _slow(self) -> None:
        for group in self._rig.optimizer.param_groups:
            if isinstance(group.get("lr"), float):
                group["lr"] *= SLOWED
        self._before = None

    def _states(self, step: int) -> Iterator[Agreement]:
        """What both optimizers keep after the step."""
        assert self._original is not None and self._before is not None
        names = {id(value): name for name, value in self._original.model.named_parameters()}
        groups = self._original.optimizer.param_groups
        parameters = [parameter for group in groups for parameter in group["params"]]
        own, other = self._original.optimizer.state_dict()["state"], self._before.optimizer_state
        for number, parameter in enumerate(parameters):
            name = names.get(id(parameter), f"parameter {number}")
            yield from _state(name, own.get(number, {}), other.get(number, {}), step)

    def _is_repeatable(self, before: Snapshot, batch: Any, seed: int) -> bool:
        """Whether the original's optimizer makes the same of the gradients that its own step has left: not where it
        draws, or writes into them."""
        original = before.into(assemble(self._job))
        own = trace(original, batch, seed)
        again = updated_by(before.into(original), before.state, own)
        return all(one.holds for one in _updates(again, own, before.state, 0))


def worst_of(found: list[Agreement]) -> list[Agreement]:
    """Of steps in a row, what does not hold, and of what optimizers keep the step that is the furthest off."""
    worst: dict[tuple[Kind, str], Agreement] = {}
    for one in found:
        known = worst.get((one.kind, one.name))
        if known is None or (known.holds and (not one.holds or one.error > known.error)):
            worst[one.kind, one.name] = one
    return [one for one in worst.values() if not one.holds or one.kind is Kind.STATE]


def _updates(own: Mapping[str, Tensor], made: Trace, weights: Mapping[str, Tensor], step: int) -> Iterator[Agreement]:
    for name, reference in own.items():
        other = made.updates.get(name)
        if other is None or other.shape != reference.shape or not bool(reference.isfinite().all()):
            continue  # the comparison of single steps tells it
        size = max(float(reference.norm()), SMALLEST)
        rounding = FLOAT32_ROUNDOFF * float(weights[name].detach().norm()) / size
        allowed = GROWTH * max(UPDATE_FLOOR, rounding)
        error = float((other - reference).norm()) / size
        if allowed > MOST_ALLOWED and bool(reference.any()):
            continue  # weights hardly move, but for their rounding
        if not bool(reference.any()):
            allowed = 0.0
        yield Agreement(Kind.UPDATE, name, step, cosine(reference, other), error, rounding, allowed)


def _state(name: str, own: Mapping[str, Any], other: Mapping[str, Any], step: int) -> Iterator[Agreement]:
    for key in own.keys() | other.keys():
        mine, theirs, what = own.get(key), other.get(key), f"{key} of {name}"
        if (mine is None) != (theirs is None):
            yield _wrong(what, step, MISSING if theirs is None else EXTRA)
        elif torch.is_tensor(mine) and torch.is_tensor(theirs):
            yield _tensor(what, mine, theirs, step)
        elif isinstance(mine, int | float) and isinstance(theirs, int | float):
            error = abs(theirs - mine) / max(abs(mine), SMALLEST)
            yield Agreement(Kind.STATE, what, step, 1.0, error, 0.0, GROWTH * UPDATE_FLOOR)


def _tensor(what: str, mine: Tensor, theirs: Tensor, step: int) -> Agreement:
    own, other = wide(mine), wide(theirs)
    if own.shape != other.shape:
        return _wrong(what, step, f"shape {list(other.shape)}, and the original's is {list(own.shape)}")
    if not bool(other.isfinite().all()) and bool(own.isfinite().all()):
        return _wrong(what, step, "it holds NaN or infinite values")
    is_count = not own.ndim and bool(own == own.round())
    error = float((other - own).norm()) / max(float(own.norm()), SMALLEST)
    allowed = 0.0 if is_count else GROWTH * UPDATE_FLOOR
    return Agreement(Kind.STATE, what, step, cosine(own, other), error, 0.0, allowed)


def _wrong(what: str, step: int, reason: str) -> Agreement:
    return Agreement(Kind.STATE, what, step, 0.0, float("inf"), 0.0, 0.0, reason)
