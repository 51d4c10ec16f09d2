"""Live progress on standard error: stage, candidate, best so far, time left; plain lines where there is no terminal.

It is redrawn only when something happens, never by a timer: while a candidate is timed the parent must stay still.
"""

from __future__ import annotations

from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.text import Text

from vivace.core.measurement import Interval, Outcome
from vivace.core.plan import Plan
from vivace.report.duration import show_duration
from vivace.report.wording import show_speedup

Speed = Interval | float | None


class Progress(Protocol):
    """What a long job tells while it runs. Every method returns at once."""

    def stage(self, name: str, detail: str = "") -> None:
        """A stage began, or its detail changed, such as stage("search", "candidate 3 of 12: onnx-runtime")."""

    def trial(self, plan: Plan | str, outcome: Outcome, speedup: Speed, best: Speed, left_seconds: float) -> None:
        """One plan was tried. `speedup` is its own, `best` the leader's, `left_seconds` what is left of the time."""

    def note(self, text: str) -> None:
        """Something that the user should read now."""

    def done(self) -> None:
        """The job is over: give the terminal back. May be called twice."""


class SilentProgress:
    """Says nothing."""

    def stage(self, name: str, detail: str = "") -> None:
        """Says nothing."""

    def trial(self, plan: Plan | str, outcome: Outcome, speedup: Speed, best: Speed, left_seconds: float) -> None:
        """Says nothing."""

    def note(self, text: str) -> None:
        """Says nothing."""

    def done(self) -> None:
        """Says nothing."""


class PlainProgress:
    """One line for each event, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._tried = 0

    def stage(self, name: str, detail: str = "") -> None:
        """One line: the stage and its detail."""
        self._print(f"{name}: {detail}" if detail else name)

    def trial(self, plan: Plan | str, outcome: Outcome, speedup: Speed, best: Speed, left_seconds: float) -> None:
        """One line: what was tried and how it ended."""
        self._tried += 1
        self._print(
            f"  tried {self._tried}: {trial_line(plan, outcome, speedup)}; best {show_speedup(best)}, "
            f"{show_duration(left_seconds)} left"
        )

    def note(self, text: str) -> None:
        """One line: the note."""
        self._print(f"  note: {text}")

    def done(self) -> None:
        """Nothing is held."""

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class LiveProgress:
    """What was tried scrolls by; one line at the bottom says where the job is."""

    def __init__(self, console: Console) -> None:
        self._live = Live(Text(""), console=console, auto_refresh=False, transient=True)
        self._stage = self._best = self._left = ""
        self._tried = 0

    def stage(self, name: str, detail: str = "") -> None:
        """The bottom line changes."""
        self._stage = f"{name}: {detail}" if detail else name
        self._draw()

    def trial(self, plan: Plan | str, outcome: Outcome, speedup: Speed, best: Speed, left_seconds: float) -> None:
        """A line scrolls by, and the bottom line changes."""
        self._tried += 1
        self._best = f"best {show_speedup(best)}" if best is not None else ""
        self._left = f"{show_duration(left_seconds)} left"
        style = "green" if outcome is Outcome.OK else "dim"
        self._print(Text(f"{self._tried:3} {trial_line(plan, outcome, speedup)}", style))

    def note(self, text: str) -> None:
        """A line scrolls by."""
        self._print(Text(f"    {text}", "yellow"))

    def done(self) -> None:
        """The bottom line goes; what scrolled by stays."""
        self._live.stop()

    def _print(self, line: Text) -> None:
        line.no_wrap, line.overflow = True, "ellipsis"
        self._live.console.print(line)
        self._draw()

    def _draw(self) -> None:
        self._live.start()
        words = " · ".join(part for part in (self._best, self._left, self._stage) if part)
        self._live.update(Text(words, "bold", no_wrap=True, overflow="ellipsis"), refresh=True)


def progress_on(console: Console, quiet: bool = False) -> Progress:
    """The progress that suits a console: live on a terminal, plain lines elsewhere, silent when asked."""
    if quiet:
        return SilentProgress()
    return LiveProgress(console) if console.is_terminal and not console.is_dumb_terminal else PlainProgress(console)


def trial_line(plan: Plan | str, outcome: Outcome, speedup: Speed) -> str:
    """How one trial ended, in one line.

    >>> trial_line("threads(count=1)", Outcome.OK, 1.5)
    '1.50x  threads(count=1)'
    >>> trial_line("inductor", Outcome.TIMEOUT, None)
    'timeout  inductor'
    """
    word = show_speedup(speedup) if outcome is Outcome.OK else outcome.value.replace("_", " ")
    extra = f" ({show_speedup(speedup)})" if outcome is not Outcome.OK and speedup is not None else ""
    return f"{word}  {plan}{extra}"
