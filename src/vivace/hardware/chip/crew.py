"""Threads that wait for tools, and the programs that these run: when the work is given up, all of them end with it."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil

_HERE = threading.local()


class _Crew:
    """The programs that the threads of one pool run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._programs: set[subprocess.Popen[str]] = set()
        self._over = False

    def join(self) -> None:
        """Count what this thread runs as the crew's."""
        _HERE.crew = self

    def add(self, program: subprocess.Popen[str]) -> None:
        with self._lock:
            self._programs.add(program)
            over = self._over
        if over:
            end(program)

    def remove(self, program: subprocess.Popen[str]) -> None:
        with self._lock:
            self._programs.discard(program)

    def end(self) -> None:
        """End all programs, and those that a thread starts from now on."""
        with self._lock:
            self._over = True
            programs = list(self._programs)
        for program in programs:
            end(program)


@contextlib.contextmanager
def crew(threads: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads that run tools; an exception, or Ctrl-C, ends the tools and drops what has not begun.

    >>> with crew(2) as pool:
    ...     print(pool.submit(max, 1, 2).result())
    2
    """
    workers = _Crew()
    with ThreadPoolExecutor(threads, initializer=workers.join) as pool:
        try:
            yield pool
        except BaseException:  # Ctrl-C too: nobody waits for a placing that nobody wants
            pool.shutdown(wait=False, cancel_futures=True)
            workers.end()
            raise


@contextlib.contextmanager
def counted(program: subprocess.Popen[str]) -> Iterator[None]:
    """While a program runs, it is one of this thread's crew, where the thread has one."""
    workers: _Crew | None = getattr(_HERE, "crew", None)
    if workers is None:
        yield
        return
    workers.add(program)
    try:
        yield
    finally:
        workers.remove(program)


def end(program: subprocess.Popen[str]) -> None:
    """Kill a program with all that it started: a compiler's driver leaves its compiler running for minutes."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for one in psutil.Process(program.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
    program.kill()
