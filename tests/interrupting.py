"""A progress that presses Ctrl-C, for tests of what a training keeps then."""

from __future__ import annotations

import os
import signal

from vivace.report.progress import SilentProgress


class Interrupting(SilentProgress):
    """Presses Ctrl-C, once, when the training has taken its first steps."""

    def __init__(self) -> None:
        self.pressed = False

    def stage(self, name: str, detail: str = "") -> None:
        if name == "train" and not self.pressed:
            self.pressed = True
            os.kill(os.getpid(), signal.SIGINT)
