"""Proves steps of a run's own while it trains, as often as its time allows."""

from __future__ import annotations

from collections.abc import Sequence

from vivace.api.parity import judged, parity_of
from vivace.api.together.team import RankHand
from vivace.core.quality import QualityVerdict
from vivace.core.technique import Effect
from vivace.core.training.parity import Agreement, Kind, Parity
from vivace.core.training.proofs import LaterProof
from vivace.core.training.run import Diagnosis, TrainingRun
from vivace.measure.clock import SystemClock
from vivace.measure.memory import available_bytes
from vivace.measure.process import Phase, Worker
from vivace.report.duration import show_duration

SHARE = 0.03
"""Of a run's time since it was asked for, choosing included, so much may go to proofs in the midst of it."""
LEAST_SECONDS = 0.02
"""What the first proof is expected to take beside steps: making the models."""
MOST_FURTHER = 7
"""Steps that are looked at after the one that is proved: an update that is left out every eighth time is among them."""
STEPS_OF_FURTHER = 2
"""About how many of the original's steps one of these takes as long as."""
SHARE_OF_MEMORY = 0.5
"""Of the memory that is free, so much may a proof take."""


class StepDiffers(Exception):
    """A step of the run's own is not the original's: what the proof said, the last one of `proofs`; and after how many
    steps the run had been resumed. The run is to go on from a checkpoint of at most `most` steps, where that is said.
    """

    def __init__(self, parity: Parity, proofs: Sequence[LaterProof], resumed: int, most: int | None = None) -> None:
        self.parity = parity
        self.proofs = tuple(proofs)
        self.resumed = resumed
        self.most = most
        super().__init__(parity.reason)


class LaterProofs:
    """Decides when a step of the run's own is proved, and keeps what came of it. Where a team trains, `processes` of it
    on this machine, the tensors that several of them hold are compared even where a proof cannot be afforded."""

    def __init__(self, run: TrainingRun, processes: int | None = None) -> None:
        self.found = list(run.proofs)
        self._plan = run.plan
        self._chosen_in = run.search_seconds
        self._spent = sum(one.seconds for one in run.proofs)
        self._step_seconds = run.diagnosis.step_seconds
        self._expected = LEAST_SECONDS
        self._steps_of_one = 1
        self._is_together = processes is not None
        self._needed = bytes_needed(run.diagnosis) * (processes or 1)  # each takes the original's steps by itself
        self._first = _first(run)
        self._why = ""
        self._gap = ""
        held = [one.step for one in run.proofs if one.verdict is QualityVerdict.HELD]
        self._held = held[-1] if held else 0
        self._asked = 0
        self.proved_steps = 0
        """The steps of the run up to the last one that was proved, or to where it began."""

    def begin(self, steps: int, steps_of_one: int) -> None:
        """The run goes on from here, with a plan that was proved by itself. A proof takes about so many of the
        original's steps."""
        self._steps_of_one = steps_of_one
        self._expected = steps_of_one * self._step_seconds + LEAST_SECONDS
        if steps > self._held:
            self._gap = f"steps {self._held + 1} to {steps} were not proved before the run was stopped"
        self.proved_steps = self._asked = steps

    def again(self, steps: int) -> None:
        """Processes have started again from the checkpoint of so many steps: what was proved after it is not in the
        run any more."""
        self._asked = -1
        self.proved_steps, self._held = min(self.proved_steps, steps), min(self._held, steps)

    def prove(self, worker: Worker | RankHand, steps: int, elapsed: float, resumed: int, is_last: bool) -> bool:
        """Prove the step that the training would take now, if that can be afforded `elapsed` seconds after it began;
        whether it was. What was asked before after so many steps is not looked at again. Raises StepDiffers
        where it is not the original's."""
        if not len(self._plan) or steps == self._asked:
            return steps > 0 and steps == self._held
        self._why = self._unaffordable(self._chosen_in + elapsed, is_last)
        copies_alone = bool(self._why)
        if copies_alone and not self._is_together:
            self._asked = steps
            return False
        further = 0 if copies_alone else self._affordable(self._chosen_in + elapsed, is_last)
        clock = SystemClock()
        began = clock.now()
        told = worker.call(
            "prove", {"copies_alone": copies_alone, "first": self._first, "further": further}, Phase.CONVERT
        )
        self._asked = steps
        seconds = clock.now() - began
        self._spent += seconds
        if "unproved" in told:
            self._why = told["unproved"]
            return False
        if copies_alone and not told["agreements"]:
            return False
        self._expected = seconds * self._steps_of_one / (self._steps_of_one + STEPS_OF_FURTHER * further)
        proof = parity_of(self._plan, {**told, "whole_step": False}, effect=Effect.ROUNDED)
        self.found.append(self._entry(proof, steps, seconds))
        if proof.verdict is QualityVerdict.NOT_HELD:
            raise StepDiffers(proof, self.found, resumed)
        if proof.verdict is not QualityVerdict.HELD:
            self._why = proof.reason
            return False
        self.proved_steps = self._held = steps
        return True

    def epoch(self, number: int, given: int, wanted: int, steps: int, resumed: int) -> None:
        """An epoch has ended that had so many batches. Raises StepDiffers where its samples make another number, and a
        plan has fed it: the run is to go on from before this epoch."""
        if given == wanted or not len(self._plan):
            return
        told = f"there were {given}, and its samples make {wanted}"
        agreement = Agreement(Kind.BATCH, f"epoch {number}", steps, 0.0, float("inf"), 0.0, 0.0, told)
        verdict, reason = judged(Effect.ROUNDED, (agreement,), None, None)
        proof = Parity(str(self._plan), self._plan.training_effect.value, "the samples", verdict, reason, (agreement,))
        self.proved_steps = min(self.proved_steps, steps - given)
        self.found.append(self._entry(proof, steps, 0.0))
        raise StepDiffers(proof, self.found, resumed, steps - given)

    def unproved(self, steps: int) -> str:
        """Which of so many steps no proof speaks for, and why; nothing where there is none."""
        if not len(self._plan):
            return ""
        is_open = steps > self.proved_steps and self._why
        end = f"steps {self.proved_steps + 1} to {steps} were not proved again: {self._why}" if is_open else ""
        return "; ".join(filter(None, (self._gap, end)))

    def _unaffordable(self, seconds: float, is_last: bool) -> str:
        """Why a proof cannot be made now, nothing where it can; one that is not the last leaves as much for that."""
        if self._spent + self._expected * (1 if is_last else 2) > SHARE * seconds:
            return (
                f"a proof takes about {show_duration(self._expected)}, and with those before more than {SHARE:.0%} of "
                f"the run's {show_duration(seconds)}"
            )
        free = available_bytes()
        if self._needed > SHARE_OF_MEMORY * free:
            return f"a proof needs about {self._needed / 1e9:.2g} GB, and {free / 1e9:.2g} GB of memory are free"
        return ""

    def _affordable(self, seconds: float, is_last: bool) -> int:
        """How many steps may be looked at after the one that is proved: what is left of the time of proofs allows."""
        left = SHARE * seconds - self._spent - self._expected * (1 if is_last else 2)
        return max(0, min(MOST_FURTHER, int(left / max(STEPS_OF_FURTHER * self._step_seconds, 1e-9))))

    def _entry(self, proof: Parity, steps: int, seconds: float) -> LaterProof:
        worst = next(iter(proof.agreements), None)
        return LaterProof(
            proof.plan, steps, self.proved_steps, proof.verdict, proof.reason, proof.reference, len(proof.agreements),
            worst, seconds,
        )  # fmt: skip


def _first(run: TrainingRun) -> dict[str, float]:
    """How far tensors were off in the first steps of a plan that changes the computation by design."""
    if run.plan.training_effect is not Effect.CHANGED or run.parity is None:
        return {}
    found: dict[str, float] = {}
    for one in run.parity.agreements:
        if not one.reason:
            found[one.what] = max(one.error, found.get(one.what, 0.0))
    return found


def bytes_needed(found: Diagnosis) -> int:
    """What a proof takes beside the run at most: the original in float32 and in float64, a copy of what the run holds,
    and gradients and updates of three steps in float64."""
    held = found.parameter_bytes + found.gradient_bytes + found.optimizer_bytes
    return 4 * held + 3 * found.activation_bytes + 3 * 2 * (found.parameter_bytes + found.gradient_bytes)
