"""Progress on a terminal, without one, and silent."""

from __future__ import annotations

import io

from rich.console import Console

from vivace.core.measurement import Interval, Outcome
from vivace.report.progress import LiveProgress, PlainProgress, Progress, SilentProgress, progress_on


def walk(progress: Progress) -> None:
    progress.stage("search", "candidate 3 of 12: inductor")
    progress.trial("inductor", Outcome.OK, Interval(2.0, 1.9, 2.1), Interval(2.0, 1.9, 2.1), 83)
    progress.trial("openvino[x]", Outcome.CRASHED, None, Interval(2.0, 1.9, 2.1), 60)
    progress.note("the machine is busy")
    progress.done()
    progress.done()


def test_without_a_terminal_each_event_is_one_plain_line() -> None:
    stream = io.StringIO()
    walk(progress_on(Console(file=stream)))
    assert stream.getvalue().splitlines() == [
        "search: candidate 3 of 12: inductor",
        "  tried 1: 2.00x [1.90, 2.10]  inductor; best 2.00x [1.90, 2.10], 1m23s left",
        "  tried 2: crashed  openvino[x]; best 2.00x [1.90, 2.10], 1m left",
        "  note: the machine is busy",
    ]


def test_a_terminal_keeps_what_was_tried_and_loses_the_bottom_line() -> None:
    stream = io.StringIO()
    progress = progress_on(Console(file=stream, force_terminal=True, width=80, _environ={"TERM": "xterm"}))
    walk(progress)
    assert isinstance(progress, LiveProgress)
    assert "2.00x [1.90, 2.10]  inductor" in stream.getvalue()
    assert "1m23s left" in stream.getvalue()
    assert stream.getvalue().endswith("\x1b[2K")


def test_a_live_line_is_drawn_by_events_and_by_no_thread() -> None:
    progress = LiveProgress(Console(file=io.StringIO(), force_terminal=True))
    progress.stage("search")
    assert progress._live._refresh_thread is None
    progress.done()


def test_a_dumb_terminal_gets_plain_lines() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"})
    assert isinstance(progress_on(console), PlainProgress)


def test_quiet_says_nothing() -> None:
    stream = io.StringIO()
    progress = progress_on(Console(file=stream), quiet=True)
    walk(progress)
    assert isinstance(progress, SilentProgress)
    assert stream.getvalue() == ""
