"""The race of a search: one long-lived baseline, one fresh worker for each candidate, blocks until it is decided."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from vivace.core.measurement import Comparison
from vivace.measure import environment
from vivace.measure.live import ArmSpec, LiveArm
from vivace.measure.paired import ONE_PERCENT, Pair, StopRule, conclude, hopeless, refuse_cached
from vivace.measure.process import STANDARD, Limits


class Race:
    """Candidates against one baseline that stays alive. Its figures choose; they never reach a headline.

    A context manager. The baseline is opened when it is first needed, and once more if its worker was lost.
    """

    def __init__(
        self,
        baseline: ArmSpec,
        calls: Path,
        folder: Path,
        *,
        rule: StopRule = ONE_PERCENT,
        limits: Limits = STANDARD,
        environment_variables: Mapping[str, str] | None = None,
        noise_floor: float = 0.0,
        seed: int | None = None,
    ) -> None:
        self.rule = rule
        self.noise_floor = noise_floor
        self._spec = baseline
        self._calls = calls
        self._folder = folder
        self._limits = limits
        self._variables = environment_variables
        self._chance = random.Random(seed)
        self._baseline: LiveArm | None = None

    def run(self, candidate: ArmSpec, name: str, leader_low: float = 0.0, rule: StopRule | None = None) -> Comparison:
        """Time one candidate until the rule is met or its upper bound falls below `leader_low`.

        `name` is the candidate's folder for logs. Raises WorkerFailure when it fails; the race goes on.
        """
        rule = rule or self.rule
        before = environment.counters()
        with LiveArm(candidate, self._calls, self._folder / name, self._limits, self._variables) as arm:
            arm.start(rule.warm_seconds)
            pair = Pair(self.baseline(rule), arm, rule.block_seconds, self._chance)
            pair.run(rule, hopeless=lambda speedup: hopeless(speedup, leader_low))
            refuse_cached(pair.baseline, arm)
            pair.baseline.read_memory()
            arm.read_memory()
            notes = [environment.disturbance(before, environment.counters())]
            if hopeless(pair.speedup(), leader_low):
                notes.append(f"left the race: {pair.speedup()} is below the leader's lower bound {leader_low:.3g}")
            return conclude([pair.ratios], [pair.readings()], rule, self.noise_floor, notes)

    def baseline(self, rule: StopRule | None = None) -> LiveArm:
        """The baseline's arm, started if it is not alive."""
        if self._baseline is None or not self._baseline.worker.alive:
            self._baseline = LiveArm(self._spec, self._calls, self._folder / "baseline", self._limits,
                                     self._variables, is_baseline=True)  # fmt: skip
            self._baseline.start((rule or self.rule).warm_seconds)
        return self._baseline

    def close(self) -> None:
        """End the baseline."""
        if self._baseline is not None:
            self._baseline.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
