"""What the diagnosis of a step says of techniques: which to try first, and which cannot be worth their trial."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

from vivace.core.facts import Fact
from vivace.core.measurement import Outcome
from vivace.core.plan import Plan
from vivace.core.technique import Stage, Technique
from vivace.core.training.run import Diagnosis, StepTrial
from vivace.search.training.choose import LEAST_GAIN

TRIAL_SECONDS = 10.0
"""What proving and timing a plan is taken to cost, beside building it, when gains are weighed against time."""
NARROWER = 0.5
"""The share of the products' time that coarser numbers leave, at a guess."""
COMPILED = (Stage.COMPILE, Stage.TARGET)
"""Stages whose techniques act on the time between operators."""
UNSEEN = 0.5
"""The share of what a phase takes that a technique saves which was not tried in passing, at a guess."""


class Promising:
    """Settings, each time the one that may gain most for a second of trying it; as they come where that is equal. A
    plan that is accepted changes what is left to be gained (`after`), and so which one is next."""

    def __init__(self, settings: Iterable[Technique], found: Diagnosis) -> None:
        self._left = list(settings)
        self._found = found

    def __iter__(self) -> Iterator[Technique]:
        while self._left:
            following = min(self._left, key=self._cost)
            self._left.remove(following)
            yield following

    def after(self, trial: StepTrial, room: Room) -> None:
        """A plan was accepted, beside which there is this room: what a compiler won was time between operators."""
        new = [one for one in trial.plan if one not in trial.over.techniques]
        won = self._found.step_seconds - room.step if all(one.stage in COMPILED for one in new) else 0.0
        self._found = dataclasses.replace(
            self._found, step_seconds=room.step, input_seconds=room.waiting, update_seconds=room.updating,
            overhead_seconds=min(room.step, max(0.0, self._found.overhead_seconds - won)),
        )  # fmt: skip

    def _cost(self, one: Technique) -> float:
        return (1.0 - promise(one, self._found)) / (TRIAL_SECONDS + one.build_seconds)


def promising(settings: Iterable[Technique], found: Diagnosis) -> list[Technique]:
    """Settings in the order in which they are tried while none is accepted."""
    return list(Promising(settings, found))


def promise(technique: Technique, found: Diagnosis) -> float:
    """How many times as fast a step may be with it: what its diagnosis measured in passing, or the share of the step
    that the technique acts on. PREDICTED, and for the order of trials alone.

    A technique that nothing is known of promises nothing: it is tried all the same, after the others.
    """
    step, advised = found.step_seconds, {one.technique: one.gain for one in found.advice}
    if technique.stage is Stage.FEED:
        return _without(step, found.input_seconds)
    if technique.stage in COMPILED:
        return _without(step, found.overhead_seconds)
    if str(technique) in advised:
        return advised[str(technique)]
    if technique.stage is Stage.PRECISION:
        return _without(step, NARROWER * (found.floor_seconds or 0.0))
    return _without(step, UNSEEN * found.update_seconds) if is_update(technique) else 1.0


def is_update(technique: Technique) -> bool:
    """Whether it acts on the optimizer's update alone: it takes the place of a plain one."""
    return technique.stage is Stage.MEMORY and Fact.PLAIN_OPTIMIZER in technique.breaks


@dataclasses.dataclass(frozen=True)
class Room:
    """What is left to be won, as techniques are added: seconds of a step, of waiting and of updating in it."""

    step: float
    waiting: float
    updating: float

    @classmethod
    def of(cls, found: Diagnosis) -> Room:
        """That of the original's step."""
        return cls(found.step_seconds, found.input_seconds, found.update_seconds)

    def refusal(self, best: Plan, plan: Plan) -> StepTrial | None:
        """The trial of a plan that cannot be enough faster than the best one, since all that it adds acts on a share of
        the step that is too small; None for every other plan."""
        new = [one for one in plan if one not in best.techniques]
        for seconds, what, acts in (
            (self.waiting, "waiting for its batch", lambda one: one.stage is Stage.FEED),
            (self.updating, "the update", is_update),
        ):
            gain = _without(self.step, seconds)
            if new and all(map(acts, new)) and gain <= LEAST_GAIN:
                reason = f"{what} is {seconds / self.step:.1%} of a step: {gain:.3f} times as fast at most, PREDICTED"
                return StepTrial(plan, Outcome.NOT_FASTER, None, 0.0, False, reason, over=best)
        return None

    def after(self, trial: StepTrial) -> Room:
        """What is left beside a plan that was accepted: its step takes less, and what it won of waiting or updating is
        not there any more."""
        if trial.speedup is None:
            return self
        left = self.step / trial.speedup.value
        won = self.step - left
        new = [one for one in trial.plan if one not in trial.over.techniques]
        waiting = self.waiting - won if all(one.stage is Stage.FEED for one in new) else self.waiting
        updating = self.updating - won if all(map(is_update, new)) else self.updating
        return Room(left, min(left, max(0.0, waiting)), min(left, max(0.0, updating)))


def no_time(best: Plan, plan: Plan, left: float) -> StepTrial | None:
    """The trial of a plan that takes longer to build than is left, which others may use; None for every other plan."""
    needed = max((one.build_seconds for one in plan if one not in best.techniques), default=0.0)
    if not 0 < left < needed or needed < TRIAL_SECONDS:
        return None
    reason = f"it takes about {needed:.0f} s to build, and {left:.0f} s are left"
    return StepTrial(plan, Outcome.CANCELLED, None, 0.0, False, reason, over=best)


def _without(step: float, seconds: float) -> float:
    """The gain where so many seconds of a step are no more."""
    return step / max(step - seconds, step / 100) if step > 0 else 1.0
