"""The processor's last-level cache, as Linux tells it: what fits there need not be read from memory at each call."""

from __future__ import annotations

import re
from pathlib import Path

_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def last_level_bytes(root: Path = Path("/")) -> int | None:
    """Bytes of the largest cache that the first core can use; None where the system does not say.

    Source: Linux kernel documentation, ABI/testing/sysfs-devices-system-cpu (cache/index*/size).
    """
    sizes = [_size(path) for path in (root / "sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    return max((size for size in sizes if size), default=None)


def _size(path: Path) -> int:
    try:
        found = re.fullmatch(r"(\d+)([KMG]?)", path.read_text().strip())
    except OSError:
        return 0
    return int(found[1]) * _UNITS.get(found[2], 1) if found else 0
