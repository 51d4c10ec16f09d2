"""Detects the machine at hand: processor, instruction sets, allowed cores and memory, GPUs, TPUs, C++ compiler."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

from vivace.core.machine import Gpu, Machine, Tpu
from vivace.devices.container import Limits, container_limits
from vivace.devices.processor import processor, read_cpuinfo

COMPILERS = ("g++", "clang++", "c++")
GOOGLE = "0x1ae0"
# PCI device numbers under Google's vendor number: jax 0.10.2, jax/_src/hardware_utils.py, read in November 2026
TPU_NAMES = {
    "0x0027": "TPU v3", "0x005e": "TPU v4", "0x0062": "TPU v5p", "0x0063": "TPU v5e", "0x006f": "TPU v6e",
    "0x0076": "TPU7x",
}  # fmt: skip


def detect(root: Path = Path("/")) -> Machine:
    """The machine as this process may use it; ceilings are not measured here (`ceilings.measure_ceilings`).

    `cores_allowed` is the smallest of the affinity mask, the control groups' processor quota (rounded down, at least
    1) and the host's cores; `memory_bytes` is the smaller of physical memory and the control groups' limit. `root` is
    where /proc and /sys are looked for.
    """
    name, instructions = processor(read_cpuinfo(root))
    limits = container_limits(root)
    return Machine(
        processor=name,
        architecture=platform.machine(),
        instructions=instructions,
        cores_allowed=cores_allowed(limits, _affinity(), _cores_host()),
        cores_host=_cores_host(),
        memory_bytes=min(_physical_memory(), limits.memory_bytes or _physical_memory()),
        operating_system=f"{platform.system()} {platform.release()}",
        gpus=_gpus(),
        cxx_compiler=_cxx_compiler(),
        tpus=_tpus(root),
    )


def cores_allowed(limits: Limits, affinity: int, host: int) -> int:
    """How many threads can run at once.

    >>> cores_allowed(Limits(cores=2.5), affinity=8, host=64)
    2
    >>> cores_allowed(Limits(cores=0.5), affinity=8, host=64)
    1
    """
    quota = host if limits.cores is None else int(limits.cores)
    return max(1, min(quota, affinity, host))


def cores_here() -> int:
    """How many threads of this process can run at once."""
    return cores_allowed(container_limits(), _affinity(), _cores_host())


def threads_here() -> int:
    """How many threads an engine takes where nobody says more: one a core; fewer where OMP_NUM_THREADS asks for it."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores_here(), int(asked)) if asked.isdecimal() and int(asked) else cores_here()


def _cores_host() -> int:
    return os.cpu_count() or 1


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else _cores_host()


def _physical_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _gpus() -> tuple[Gpu, ...]:
    import torch

    if not torch.cuda.is_available():
        return ()
    found = (torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count()))
    return tuple(Gpu(gpu.name, gpu.total_memory, (gpu.major, gpu.minor)) for gpu in found)


def _tpus(root: Path) -> tuple[Tpu, ...]:
    """Chips on the PCI bus. Nothing is opened: a process that asks JAX for its devices takes them for itself."""
    found = []
    for vendor in sorted((root / "sys/bus/pci/devices").glob("*/vendor")):
        if _line_of(vendor) == GOOGLE and (name := TPU_NAMES.get(_line_of(vendor.with_name("device")))):
            found.append(Tpu(name))
    return tuple(found)


def _line_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _cxx_compiler() -> str:
    asked = os.environ.get("CXX", "").split()[:1]
    found = (shutil.which(name) for name in (*asked, *COMPILERS))
    return next((path for path in found if path), "")
