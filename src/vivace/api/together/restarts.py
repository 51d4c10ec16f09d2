"""Restarts of a training's ranks, as a report tells them: who has gone, after which step, and how many go on."""

from __future__ import annotations

from collections.abc import Callable

from vivace.api.together.team import RankHand, Restarted
from vivace.report.progress import Progress


class Restarts:
    """What became of a training's processes; `told` has a sentence for each time that they have started again.

    `prove` is called where another number of them goes on, before they do: their layout is another one then.
    """

    def __init__(self, hand: object, progress: Progress, prove: Callable[[RankHand], object]) -> None:
        self.told: list[str] = []
        self._hand = hand if isinstance(hand, RankHand) else None
        self._processes = 1 if self._hand is None else self._hand.processes
        self._progress = progress
        self._prove = prove
        self._finished = 0

    def begin(self, restart: Restarted, steps: int) -> None:
        """They have started again, after so many steps."""
        self.told.append(f"{restart.reason}, after step {steps}")
        several = _several(restart.processes)
        self._progress.note(f"{restart.reason}; {several} on from the last checkpoint")
        if self._hand is not None and restart.processes != self._processes:
            self._progress.stage("prove", f"steps against those of one process, since {several} on")
            self._prove(self._hand)  # meanwhile others may have left
        self._processes = restart.processes if self._hand is None else self._hand.processes

    def end(self, steps: int) -> None:
        """They go on from the checkpoint of so many steps."""
        going = f"{_several(self._processes)} on from step {steps}"
        self.told[self._finished :] = [f"{one}; {going}" for one in self.told[self._finished :]]
        self._finished = len(self.told)


def _several(processes: int) -> str:
    return "1 process goes" if processes == 1 else f"{processes} processes go"
