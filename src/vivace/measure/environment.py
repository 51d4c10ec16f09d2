"""What is recorded beside each number: versions, threads, affinity, load, stolen time, throttling."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "numpy", "onnxruntime", "openvino", "nncf", "torchao", "keras", "transformers", "jax")
VARIABLES = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "KMP_AFFINITY", "KMP_BLOCKTIME", "GOMP_CPU_AFFINITY",
             "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "LD_PRELOAD", "MALLOC_CONF")  # fmt: skip
THROTTLING = (Path("/sys/fs/cgroup/cpu.stat"), Path("/sys/fs/cgroup/cpu/cpu.stat"))
FREQUENCY = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq")
STOLEN_SHARE = 0.05


def snapshot() -> dict[str, Any]:
    """The conditions of a measurement, now, as a JSON value. Counters are totals: compare two with `disturbance`."""
    return {
        "python": platform.python_version(),
        "versions": _versions(),
        "threads": torch.get_num_threads(),
        "affinity": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "load_average": list(os.getloadavg()),
        "processor_ticks": _processor_ticks(),
        "throttled_periods": _throttled_periods(),
        "frequency_khz": _number(FREQUENCY),
        "gpus": _gpus(),
    }


def disturbance(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """What the machine did to the measurement between two snapshots, as a phrase; empty when nothing was seen.

    >>> still = {"processor_ticks": {"total": 100, "steal": 0}, "throttled_periods": 0}
    >>> busy = {"processor_ticks": {"total": 200, "steal": 20}, "throttled_periods": 3}
    >>> disturbance(still, busy)
    'throttled in 3 scheduling periods; 20% of the processor time was stolen by other virtual machines'
    """
    found = []
    throttled = after["throttled_periods"] - before["throttled_periods"]
    if throttled > 0:
        found.append(f"throttled in {throttled} scheduling periods")
    passed = after["processor_ticks"]["total"] - before["processor_ticks"]["total"]
    stolen = after["processor_ticks"]["steal"] - before["processor_ticks"]["steal"]
    if passed > 0 and stolen / passed > STOLEN_SHARE:
        found.append(f"{stolen / passed:.0%} of the processor time was stolen by other virtual machines")
    return "; ".join(found)


def counters() -> dict[str, Any]:
    """Only what `disturbance` compares: cheap enough to read around every restart."""
    return {"processor_ticks": _processor_ticks(), "throttled_periods": _throttled_periods()}


def core_seconds() -> tuple[float, float]:
    """Seconds for which the threads of this process ran, and for which they were ready and waited for a core, since
    they began; zeros where the kernel does not tell (proc(5), schedstat)."""
    ran = waited = 0
    for thread in Path("/proc/self/task").glob("*/schedstat"):
        try:
            running, waiting, _ = thread.read_text().split()
        except (OSError, ValueError):  # it has ended, or the kernel keeps no such file
            continue
        ran, waited = ran + int(running), waited + int(waiting)
    return ran * 1e-9, waited * 1e-9


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _processor_ticks() -> dict[str, int]:
    """All and stolen ticks of all processors since boot (proc(5), stat, first line, 8th field)."""
    try:
        fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    except OSError:
        return {"total": 0, "steal": 0}
    return {"total": sum(fields[:8]), "steal": fields[7] if len(fields) > 7 else 0}


def _throttled_periods() -> int:
    for path in THROTTLING:
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            if line.startswith("nr_throttled "):
                return int(line.split()[1])
    return 0


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _gpus() -> list[str]:
    if not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
