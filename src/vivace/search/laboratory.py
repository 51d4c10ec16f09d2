"""Where plans are tried: built in one worker, opened in a fresh one, judged, and raced with the original."""

from __future__ import annotations

import dataclasses
import random
import shutil
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vivace.core.errors import UnsupportedModel, UsageError, WorkerFailure
from vivace.core.facts import Fact
from vivace.core.machine import JaxPlatform
from vivace.core.measurement import Interval, Outcome
from vivace.core.plan import Plan
from vivace.core.result import Trial, TrialStage
from vivace.core.technique import Effect
from vivace.data import samples
from vivace.data.samples import read_outputs
from vivace.measure.claims.caches import refuse_cached, refuse_cached_original
from vivace.measure.clock import SystemClock
from vivace.measure.forking import reserve
from vivace.measure.live import ArmSpec, LiveArm
from vivace.measure.paired import Pair, StopRule
from vivace.measure.process import Limits, Phase, Worker
from vivace.runtimes import store
from vivace.search.alone import Invariance
from vivace.search.caches import compiler_variables
from vivace.search.champion import Champion, is_lost
from vivace.search.evaluation import Evaluation
from vivace.search.identity import key_of, size_of
from vivace.search.judge import Rules, failures_of_a_plan, judge, outcome_of, refuse
from vivace.search.options import Options
from vivace.search.prepare import Prepared
from vivace.search.schedule import longest_race

STORE_ENTRY = "vivace.runtimes.store:open_program"
BUILDER_ENTRY = "vivace.search.build:open_builder"
LEAK_BYTES = 200_000_000
"""A program that was warmed up and then grows by more than this during a race of a few seconds is not fit to serve."""
AT_ONCE_BYTES = 500_000_000
"""Of a model, of which four copies are held for some seconds."""
RACE = StopRule(half_width=0.02, min_blocks=10, max_blocks=30, warm_seconds=2.0)
"""What comes close to the fastest is then timed against it for half as long."""


class Laboratory:
    """Holds the original's arm, which is stopped while a candidate is built, and the builder. A context manager."""

    def __init__(self, prepared: Prepared, options: Options, folder: Path) -> None:
        self.prepared = prepared
        self.options = options
        self.folder = folder
        self.invariance = Invariance(prepared, folder)
        self.variables = compiler_variables(folder, prepared.platform)
        self.rules = Rules(options.budget, options.gate, options.metric)
        self.race = dataclasses.replace(RACE, max_seconds=longest_race(options.seconds))
        self.opening_seconds = self.race_opening_seconds = self.warmed_seconds = self.loading_seconds = 0.0
        self._champion = Champion(dataclasses.replace(self.race, max_seconds=self.race.max_seconds / 2), options.seed)
        self._must_be_finite = True
        self._shared_seconds: dict[Plan, float] = {}
        self._clock = SystemClock()
        self._chance = random.Random(options.seed)
        self._builder: Worker | None = None
        self._builder_is_open = False
        self._baseline: LiveArm | None = None
        self._anew: LiveArm | None = None
        self._again: LiveArm | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._champion.close()
        if self._builder is not None:
            self._builder.__exit__(kind, error, trace)
        for arm in (self._anew, self._again, self._baseline):
            if arm is not None:
                arm.__exit__(kind, error, trace)

    def learn_original(self) -> float:
        """Let the original answer everything that candidates are judged by, and judge the graph captured of it.

        Returns the original's median seconds of a call. Raises UsageError when it fails on the data or its answers
        cannot be scored, and UnsupportedModel when the graph, of which every plan is built, does not repeat it on the
        user's data.
        """
        baseline = self.baseline()
        # interpreters start, and programs open, while the original answers: the builder's, the graph's, its own others
        builder = self._start_builder()
        self._anew, again = self._arm("anew"), self._arm("again")
        self._again = again
        with self._candidate(Plan(), self.options.limits) as captured:
            self._open_meanwhile(captured, self._anew, again)
            referee = self.prepared.referee
            finite = self._answers_to_data(baseline)
            finite.append(self.answers(baseline, referee.calls, referee.original))
            self._must_be_finite = all(finite)
            self.invariance.learn(baseline)
            self._check_metric()
            self._check_loss()
            self._check_capture(self._examined(captured, Plan()))
        with suppress(WorkerFailure):  # one that has died by then is started anew for the first plan
            builder.ready()
        again.open()  # what still opens would disturb what is timed from here on
        return self._started_anew().seconds_per_call

    def _open_meanwhile(self, *arms: LiveArm) -> None:
        """Have programs open while another answers, where there is room for so many copies of a model at once."""
        if self.prepared.device == "cpu" and size_of(self.prepared.program) < AT_ONCE_BYTES:
            for arm in arms:
                with suppress(WorkerFailure):  # one that has died by then says so when it is waited for
                    arm.post()

    def _started_anew(self) -> LiveArm:
        """The original in a process that has answered nothing. One that answered many calls at once has an allocator
        that keeps larger blocks, and was up to 1.5 times faster than any other process of the same program."""
        if self._baseline is not None:
            self._baseline.close()
        self._baseline, self._anew = self._anew, None
        if self._baseline is not None and self._baseline.worker.alive:
            self._start_baseline(self._baseline)
        return self.baseline()

    def _start_baseline(self, arm: LiveArm) -> None:
        arm.start(self.race.warm_seconds)
        self.warmed_seconds = arm.warmed_seconds
        arm.read_memory()

    def _answers_to_data(self, baseline: LiveArm) -> list[bool]:
        """Have the original answer both parts; whether its answers are finite. What it raises itself is the user's."""
        parts = (self.prepared.select, self.prepared.confirm)
        try:
            return [self._joined_answers(baseline, part, part.reference) for part in parts]
        except WorkerFailure as failure:
            if not baseline.worker.alive:
                raise
            unlike = f"{self.prepared.unlike}; " if self.prepared.unlike else ""
            raise UsageError(
                f"the model fails on the data: {failure.__cause__ or failure}; {unlike}it answers the example inputs, "
                "so give data like them: only the number of samples, and what the model leaves free, may differ"
            ) from failure

    def _joined_answers(self, arm: LiveArm, part: Evaluation, to: Path) -> bool:
        """Have the original, or the graph captured of it, answer a part as `answers` does, but several calls at once
        where the original does not care."""
        joining = self.prepared.joining
        if joining.count == 1:
            return self.answers(arm, part.calls, to)
        calls, folder = samples.read(part.calls), arm.worker.folder / f"{part.name}-joined"
        samples.write(folder, list(joining.joined(list(calls))), calls.call, calls.positional)
        finite = self.answers(arm, folder, folder / "answers.safetensors")
        found = read_outputs(folder / "answers.safetensors")
        samples.write_outputs(to, list(joining.parted(list(found), part.sizes)), found.answer)
        shutil.rmtree(folder)
        return finite

    def _check_metric(self) -> None:
        """Score the original, so that a metric or a budget that cannot work is told before anything is tried."""
        metric = self.options.metric
        if metric is not None:
            for part in (self.prepared.select, self.prepared.confirm):
                scores = part.scores(part.original_outputs(), metric)
                self.options.budget.margin(float(scores.mean()))

    def _check_loss(self) -> None:
        """Have a user's loss score the original in the worker that builds, for the same reason."""
        work = self.prepared.work
        if self.prepared.lesson is None or work.calibration is None or Fact.TORCH_GRAPH not in work.facts:
            return
        try:
            self._open_builder().call("check_loss", {}, Phase.FIRST_CALL)
        except UnsupportedModel as error:
            raise UsageError(
                f"the loss or its labels cannot be sent to a worker process ({error.__cause__}); give a function that "
                "holds no open files, locks and the like"
            ) from error
        except WorkerFailure as failure:
            raise UsageError(f"the loss could not be computed in a worker process: {failure}") from failure

    def baseline(self) -> LiveArm:
        """The original's arm, started anew when it died."""
        if self._baseline is None or not self._baseline.worker.alive:
            started = self._clock.now()
            self._baseline = self._arm("baseline")
            self._start_baseline(self._baseline)
            self.race_opening_seconds = self._clock.now() - started
            # as in a confirmation, whose arms are fresh interpreters
            worker = self._baseline.worker
            self.opening_seconds = self.race_opening_seconds + worker.spared_seconds + worker.shared_seconds
            self.loading_seconds = self.race_opening_seconds - self.warmed_seconds + worker.shared_seconds
        return self._baseline

    def noise(self) -> list[float]:
        """The original against itself in another process: the log of the ratio of each block."""
        made, self._again = self._again or self._arm("again"), None
        with made as again:
            started = self._clock.now()
            again.start(self.race.warm_seconds)
            opening = self._clock.now() - started + again.worker.spared_seconds + again.worker.shared_seconds
            self.opening_seconds = max(self.opening_seconds, opening)
            pair = Pair(self.baseline(), again, self.race.block_seconds, self._chance)
            pair.run(self.race)
            refuse_cached_original(self.baseline(), again)
            return pair.log_ratios

    def _check_capture(self, trial: Trial) -> None:
        reason = "" if trial.outcome is Outcome.OK else trial.reason
        if reason:
            raise UnsupportedModel(
                f"the graph that was captured of the model does not repeat it on your data: {reason}. Its forward may "
                "depend on values or on shapes in a way that a graph cannot hold; give one path through it, an .onnx "
                "file, or fixed_shapes=True (--fixed-shapes)"
            )

    def examined(self, plan: Plan, limits: Limits) -> Trial:
        """Judge a plan that is built, by the metric too, in a process of its own and without timing it."""
        with self._candidate(plan, limits) as arm:
            return self._examined(arm, plan)

    def _candidate(self, plan: Plan, limits: Limits) -> LiveArm:
        folder = self.folder / "examined" / key_of(plan)
        return LiveArm(self.spec(plan), self.prepared.race_calls, folder, limits, self.variables, fresh=False)

    def _examined(self, arm: LiveArm, plan: Plan) -> Trial:
        trial = Trial(plan, Outcome.OK, TrialStage.LADDER)
        try:
            arm.start(warm_seconds=0.0)
            return self._judge(arm, trial, thoroughly=True)
        except WorkerFailure as failure:
            return trial.replace(outcome=failure.outcome, reason=failure.reason)

    def original_merit(self) -> float:
        """What a finalist's merit must exceed: the original's own, in memory or in size; a time has its own verdict."""
        if self.options.by_speed:
            return 0.0
        original = Trial(
            Plan(),
            Outcome.OK,
            TrialStage.LADDER,
            size_bytes=size_of(self.prepared.program),
            peak_memory_bytes=self.baseline().peak_bytes,
        )
        return self.options.merit(original)

    def attempt(self, plan: Plan, stage: TrialStage, seconds: float) -> Trial:
        """Try one plan, in about `seconds` at most. Never raises for what a candidate does: its outcome says it."""
        trial = Trial(plan, Outcome.OK, stage)
        self.baseline()
        limits = self.options.limits.within(max(seconds, 1.0))
        spec, folder = self.spec(plan), self.folder / "arms" / key_of(plan)
        with ExitStack() as kept:
            # it starts while the plan is built
            arm = LiveArm(spec, self.prepared.race_calls, folder, limits, self.variables, fresh=False)
            kept.enter_context(arm)
            try:
                started = self._clock.now()
                self.build(plan, limits.convert)
                built = self._clock.now() - started + self._shared_seconds.get(plan, 0.0)
                trial = trial.replace(build_seconds=built, size_bytes=size_of(self.program(plan)))
                return self._examine(arm, trial, kept)
            except WorkerFailure as failure:
                return trial.replace(outcome=failure.outcome, reason=failure.reason)
            except UsageError as error:  # the metric, which could score the original, cannot score these answers
                return trial.replace(outcome=Outcome.WRONG_OUTPUT, reason=str(error))

    def build(self, plan: Plan, seconds: float | None = None) -> Path:
        """The plan's program folder, built unless it is there. Raises WorkerFailure."""
        folder = self.program(plan)
        if not folder.is_dir():
            with failures_of_a_plan(), reserve.going():
                builder = self._open_builder()
                allowed = self.options.limits.convert if seconds is None else seconds
                asked = {"plan": plan.to_json(), "to": str(folder), "seconds": allowed}
                told = builder.call("build", asked, Phase.CONVERT, allowed)
                self._shared_seconds[plan] = told["shared_seconds"]
        return folder

    def program(self, plan: Plan) -> Path:
        """Where a plan's program lies; the empty plan's is the captured original."""
        return self.folder / "programs" / key_of(plan) if len(plan) else self.prepared.program

    def spec(self, plan: Plan) -> ArmSpec:
        """How a worker opens a plan's program."""
        entry = next((t.program_entry for t in plan if t.program_entry), STORE_ENTRY)
        arguments: dict[str, Any] = {"folder": str(self.program(plan)), "trust": True}
        if entry != STORE_ENTRY:
            arguments["plan"] = plan.to_json()
        return ArmSpec(entry, arguments, None, str(plan), self.prepared.device)

    def _examine(self, arm: LiveArm, trial: Trial, kept: ExitStack) -> Trial:
        """Open, judge, race; in this order, so that nothing wrong is ever timed.

        Against the champion first: who loses that is timed against the original only as often as an interval needs.
        """
        arm.start(self.race.warm_seconds)
        arm.caching()  # asked before any judging, while the inputs that it holds out are still new
        trial = trial.replace(load_seconds=arm.load_seconds + self._unread(arm) + arm.first_call_seconds)
        trial = self._judge(arm, trial)
        if trial.outcome is not Outcome.OK:
            return trial
        settled = arm.read_memory()
        by_speed = self.options.by_speed
        found = self._champion.duel(arm) if by_speed else None
        pair = Pair(self.baseline(), arm, self.race.block_seconds, self._chance)
        pair.run(self.race, hopeless=lambda speedup: is_lost(found))
        refuse_cached(self.baseline(), arm)
        trial = trial.replace(speedup=pair.speedup(), peak_memory_bytes=arm.read_memory())
        if arm.peak_bytes - settled > LEAK_BYTES:
            grown = f"memory grew by {(arm.peak_bytes - settled) / 1e9:.2f} GB while it was timed: it leaks"
            return trial.replace(outcome=Outcome.OOM, reason=grown)
        if by_speed and pair.speedup().high < 1.0:
            return trial.replace(outcome=Outcome.NOT_FASTER, reason=f"{_slower(pair.speedup())} than the original")
        return self._champion.rank(arm, trial, found, kept) if by_speed and not self.is_exclusive else trial

    def _unread(self, arm: LiveArm) -> float:
        """Seconds that opening its program takes longer where it will be used: in an interpreter that has read none."""
        is_read = arm.spec.program == STORE_ENTRY and store.needs_exporter(Path(arm.spec.arguments["folder"]))
        return arm.worker.reader_seconds if is_read else 0.0

    @property
    def is_exclusive(self) -> bool:
        """Whether one program at a time can be open where candidates run, so that none can be kept as champion."""
        return self.prepared.platform is not None and self.prepared.platform.is_exclusive

    def _judge(self, arm: LiveArm, trial: Trial, thoroughly: bool = False) -> Trial:
        effect, folder = trial.plan.effect, arm.worker.folder
        if not arm.ask("repeatable", phase=Phase.VERIFY)["repeatable"]:
            return trial.replace(outcome=Outcome.WRONG_OUTPUT, reason="the same input gave different answers")
        referee = self.prepared.referee
        if not self.answers(arm, referee.calls, folder / "referee.safetensors"):
            return trial.replace(outcome=Outcome.NONFINITE, reason="the answers hold NaN or infinite values")
        wrong = refuse(referee, read_outputs(folder / "referee.safetensors"), effect)
        wrong = wrong or self.invariance.refuse(arm, effect)
        if wrong:
            return trial.replace(outcome=Outcome.WRONG_OUTPUT, reason=wrong)
        if effect is not Effect.CHANGED and not thoroughly:
            return trial  # the referee passed it; the metric has its say when it is confirmed
        part, to = self.prepared.select, folder / "select.safetensors"
        is_original = trial.plan == Plan()
        if not (self._joined_answers(arm, part, to) if is_original else self.answers(arm, part.calls, to)):
            return trial.replace(outcome=Outcome.NONFINITE, reason="the answers hold NaN or infinite values")
        quality = judge(part, read_outputs(folder / "select.safetensors"), effect, self.rules)
        outcome, reason = outcome_of(quality, self.prepared.confirm.samples)
        return trial.replace(quality=quality, outcome=outcome, reason=reason)

    def answers(self, arm: LiveArm, calls: Path, to: Path) -> bool:
        """Have the arm answer stored calls; whether every answer is finite, where the original's are."""
        finite = arm.ask("outputs", {"calls": str(calls), "to": str(to)}, Phase.VERIFY)["finite"]
        return bool(finite) or not self._must_be_finite

    def _arm(self, name: str) -> LiveArm:
        """An arm of the original."""
        return LiveArm(
            self.prepared.original,
            self.prepared.race_calls,
            self.folder / name,
            self.options.limits,
            self.variables,
            is_baseline=True,
            fresh=False,
        )

    def _start_builder(self) -> Worker:
        """A worker that has started, or is about to have; whoever times something waits for it."""
        preload = [BUILDER_ENTRY.partition(":")[0]]
        variables = {**self.variables, **JaxPlatform("cpu").variables}  # it writes programs, and takes no TPU for that
        self._builder = Worker(self.folder / "builder", self.options.limits, variables, preload, fresh=False)
        self._builder_is_open = False
        return self._builder

    def _open_builder(self) -> Worker:
        if self._builder is None or not self._builder.alive:
            self._start_builder()
        assert self._builder is not None
        if not self._builder_is_open:
            self._builder.open(
                BUILDER_ENTRY,
                {
                    "work": self.prepared.work.to_json(),
                    "original": str(self.prepared.program),
                    "extra": list(self.options.extra),
                },
                self.prepared.lesson,
                Phase.LOAD,
            )
            self._builder_is_open = True
        return self._builder


def _slower(speedup: Interval) -> str:
    return f"{1 / speedup.value:.2f} times slower"
