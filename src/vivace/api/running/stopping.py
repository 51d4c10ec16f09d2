"""Ctrl-C while a training runs."""

from __future__ import annotations

import signal
import threading
from typing import Any


class Stopping:
    """Ctrl-C once asks to stop at the next opportunity; a second one stops at once. So does a request to terminate,
    where the program takes that for Ctrl-C. Only the main thread is sent signals, so elsewhere nothing is asked.
    """

    def __init__(self) -> None:
        self.is_asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():
            handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
            self._before = {number: before for number, before in handlers.items() if callable(before)}
            for number in self._before:
                signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _ask(self, *_: object) -> None:
        self.is_asked = True
        self.__exit__()
