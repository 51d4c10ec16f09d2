"""What the diagnosis of a step says of techniques: which to try first, and which cannot be worth their trial."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator

from vivace.core.facts import Fact
from vivace.core.measurement import Outcome
from vivace.core.plan import Plan
from vivace.core.technique import Effect, Stage, Technique
from vivace.core.training.run import Diagnosis, StepTrial
from vivace.search.training.choose import LEAST_GAIN
from vivace.search.training.ending import PROOF_SECONDS, RACE_SECONDS

TRIAL_SECONDS = PROOF_SECONDS + RACE_SECONDS
"""What trying a plan is taken to cost, beside building it, when gains are weighed against time."""
NARROWER = 0.5
"""The share of the products' time that coarser numbers leave, at a guess."""
UNSEEN = 0.5
"""The share of what a phase takes that a technique saves which was not tried in passing, at a guess."""


class Promising:
    """Settings, each time the one that may gain most for a second of trying it; as they come where that is equal. A
    plan that is accepted changes what is left to be gained (`after`), and so which one is next and which cannot be
    worth its trial. Of a plan to `start` from, such as that of several processes, the diagnosis knows nothing: then the
    order stays, and none is refused."""

    def __init__(self, settings: Iterable[Technique], found: Diagnosis, start: Plan | None = None) -> None:
        self._left = list(settings)
        self._found = found
        self._room = None if start else Room.of(found)

    def __iter__(self) -> Iterator[Technique]:
        while self._left:
            following = min(self._left, key=self._cost)
            self._left.remove(following)
            yield following

    def refusal(self, best: Plan, plan: Plan) -> StepTrial | None:
        """The trial of a plan that cannot be enough faster than the best one; None for every other plan."""
        return None if self._room is None else self._room.refusal(best, plan)

    def after(self, trial: StepTrial) -> None:
        """A plan was accepted."""
        if self._room is None:
            return
        self._room = room = self._room.after(trial)
        self._found = dataclasses.replace(
            self._found, step_seconds=room.step, input_seconds=room.waiting, update_seconds=room.updating,
            overhead_seconds=room.between,
        )  # fmt: skip

    def _cost(self, one: Technique) -> float:
        return (1.0 - promise(one, self._found)) / (TRIAL_SECONDS + one.build_seconds)


def promise(technique: Technique, found: Diagnosis) -> float:
    """How many times as fast a step may be with it: what its diagnosis measured in passing, or the share of the step
    that the technique acts on. PREDICTED, and for the order of trials alone.

    A technique that nothing is known of promises nothing: it is tried all the same, after the others.
    """
    step, advised = found.step_seconds, {one.technique: one.gain for one in found.advice}
    if is_feed(technique):
        return _without(step, found.input_seconds)
    if str(technique) in advised and technique.stage is not Stage.COMPILE:
        return advised[str(technique)]
    if is_compiled(technique):  # on a device, the same operators one by one are as many launches
        launches = found.device == "cuda" and technique.effect is Effect.EXACT
        return _without(step, found.overhead_seconds * (UNSEEN if launches else 1.0))
    if technique.stage is Stage.PRECISION:
        return _without(step, NARROWER * (found.floor_seconds or 0.0))
    return _without(step, UNSEEN * found.update_seconds) if is_update(technique) else 1.0


def is_feed(technique: Technique) -> bool:
    """Whether it acts on waiting for batches alone."""
    return technique.stage is Stage.FEED


def is_compiled(technique: Technique) -> bool:
    """Whether it acts on the time between operators."""
    return technique.stage in (Stage.COMPILE, Stage.TARGET)


def is_update(technique: Technique) -> bool:
    """Whether it acts on the optimizer's update alone: it takes the place of a plain one."""
    return technique.stage is Stage.MEMORY and Fact.PLAIN_OPTIMIZER in technique.breaks


@dataclasses.dataclass(frozen=True)
class Room:
    """What is left to be won, as techniques are added: seconds of a step; of waiting, of updating and between operators
    in it."""

    step: float
    waiting: float
    updating: float
    between: float

    @classmethod
    def of(cls, found: Diagnosis) -> Room:
        """That of the original's step."""
        return cls(found.step_seconds, found.input_seconds, found.update_seconds, found.overhead_seconds)

    def refusal(self, best: Plan, plan: Plan) -> StepTrial | None:
        """The trial of a plan that cannot be enough faster than the best one, since all that it adds acts on a share of
        the step that is too small; None for every other plan."""
        new = [one for one in plan if one not in best.techniques]
        for seconds, what, acts in (
            (self.waiting, "waiting for its batch", is_feed),
            (self.updating, "the update", is_update),
        ):
            gain = _without(self.step, seconds)
            if new and all(map(acts, new)) and gain <= LEAST_GAIN:
                reason = f"{what} is {seconds / self.step:.1%} of a step: {gain:.3f} times as fast at most, PREDICTED"
                return StepTrial(plan, Outcome.NOT_FASTER, None, 0.0, False, reason, over=best)
        return None

    def after(self, trial: StepTrial) -> Room:
        """What is left beside a plan that was accepted: its step takes less, and what it won of what all its new
        techniques act on is not there any more."""
        if trial.speedup is None:
            return self
        step = self.step / trial.speedup.value
        new = [one for one in trial.plan if one not in trial.over.techniques]

        def left(seconds: float, acts: Callable[[Technique], bool]) -> float:
            won = self.step - step if all(map(acts, new)) else 0.0
            return min(step, max(0.0, seconds - won))

        return Room(step, left(self.waiting, is_feed), left(self.updating, is_update), left(self.between, is_compiled))


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
