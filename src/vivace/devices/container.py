"""What a container leaves of the host: the processor and memory limits of control groups, versions 1 and 2."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

NO_LIMIT_FROM = 1 << 60
"""Version 1 writes a number near 2^63 for "no limit"; no machine has an exbibyte."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """What the control groups allow: cores' worth of processor time, and bytes. None where there is no limit."""

    cores: float | None = None
    memory_bytes: int | None = None


def container_limits(root: Path = Path("/")) -> Limits:
    """The tightest limits on the way from this process's control groups up to the root.

    Reads `proc/self/cgroup` and `sys/fs/cgroup` under `root`; whatever is not there limits nothing. A container often
    sees only its own groups, so the top of each hierarchy counts even when the group's own path is not visible.
    Source: Linux kernel documentation, admin-guide/cgroup-v2 ("cpu.max", "memory.max"), cgroup-v1/memory and
    scheduler/sched-bwc ("cpu.cfs_quota_us").
    """
    folders = list(_group_folders(root))
    cores = [limit for folder in folders for limit in (_cores_v2(folder), _cores_v1(folder)) if limit is not None]
    sizes = [
        limit
        for folder in folders
        for limit in (_bytes(folder / "memory.max"), _bytes(folder / "memory.limit_in_bytes"))
        if limit is not None
    ]
    return Limits(min(cores, default=None), min(sizes, default=None))


def _group_folders(root: Path) -> Iterator[Path]:
    mount = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        names = [controllers, *controllers.split(",")] if controllers else ["", "unified"]
        for name in dict.fromkeys(names):
            group = PurePosixPath(path.lstrip("/"))
            yield from (mount / name / part for part in (group, *group.parents))


def _cores_v2(folder: Path) -> float | None:
    quota, _, period = _read(folder / "cpu.max").partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.strip().isdigit() else None


def _cores_v1(folder: Path) -> float | None:
    quota = _read(folder / "cpu.cfs_quota_us")
    period = _read(folder / "cpu.cfs_period_us")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _bytes(file: Path) -> int | None:
    text = _read(file)
    return int(text) if text.isdigit() and int(text) < NO_LIMIT_FROM else None


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
