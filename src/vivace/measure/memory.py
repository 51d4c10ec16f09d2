"""Memory of a process and of its whole tree: resident now, peak, and what the machine can still give."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from collections.abc import Iterable
from pathlib import Path

import psutil

PAGE_BYTES = resource.getpagesize()
PROC = Path("/proc")
CGROUP = Path("/sys/fs/cgroup")
SPARE_SHARE = 0.9
"""How much of the available memory one worker may take when no limit was given; the rest keeps the machine alive."""


def session_members(session: int) -> list[int]:
    """The processes of one session: a worker, which leads its own, and all that it started and did not detach."""
    if not PROC.is_dir():
        return _children_by_psutil(session)
    found = []
    for entry in PROC.iterdir():
        if entry.name.isdigit() and _session_of(entry) == session:
            found.append(int(entry.name))
    return found


def resident_bytes(pids: Iterable[int]) -> int:
    """The sum of their resident sets. Pages that several share count once for each, so this never flatters."""
    return sum(_resident(pid) for pid in pids)


def own_pid() -> int:
    """This process."""
    return os.getpid()


def tree_bytes(pid: int) -> int:
    """Resident bytes of a process and its descendants, now."""
    return resident_bytes({pid, *_children_by_psutil(pid)})


def peak_bytes() -> int:
    """The highest resident set of this process since its start, or since `reset_peak`."""
    for line in _lines(PROC / "self" / "status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def reset_peak() -> bool:
    """Start a new peak from what is resident now (proc(5), clear_refs); False where the system does not allow it."""
    try:
        (PROC / "self" / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def available_bytes() -> int:
    """What this machine, or the container that holds us, can still give."""
    free = int(psutil.virtual_memory().available)
    limit, used = _number(CGROUP / "memory.max"), _number(CGROUP / "memory.current")
    if limit is None:
        limit = _number(CGROUP / "memory" / "memory.limit_in_bytes")
        used = _number(CGROUP / "memory" / "memory.usage_in_bytes")
    return free if limit is None else max(0, min(free, limit - (used or 0)))


def kernel_kills() -> int:
    """How often the kernel has killed for lack of memory, here or in this container; a rise explains a SIGKILL."""
    for source in (CGROUP / "memory.events", PROC / "vmstat"):
        for line in _lines(source):
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def _children_by_psutil(pid: int) -> list[int]:
    try:
        process = psutil.Process(pid)
        return [pid, *(child.pid for child in process.children(recursive=True))]
    except psutil.Error:
        return []


def _session_of(entry: Path) -> int | None:
    """Field 6 of proc(5) stat, None for a zombie; the command's name may hold spaces, so count from its parenthesis."""
    try:
        text = (entry / "stat").read_text(errors="replace")
    except OSError:
        return None
    state, _, _, session = text.rpartition(")")[2].split()[:4]
    return None if state == "Z" else int(session)


def _resident(pid: int) -> int:
    if PROC.is_dir():
        with contextlib.suppress(OSError):
            return int((PROC / str(pid) / "statm").read_text().split()[1]) * PAGE_BYTES
        return 0
    with contextlib.suppress(psutil.Error):
        return int(psutil.Process(pid).memory_info().rss)
    return 0


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _number(path: Path) -> int | None:
    text = "".join(_lines(path))
    return int(text) if text.isdigit() else None
