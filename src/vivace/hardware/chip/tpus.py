"""The TPUs that programs are compiled for ahead of time: how Google's compiler names a few chips of each kind."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class TpuChip:
    """A kind of TPU: its key in the catalogue of devices, and the smallest group of chips that the compiler knows.

    >>> TPUS["tpu-v5e"].topology, TPUS["tpu-v5e"].chips
    ('v5e:2x2', 4)
    """

    name: str
    topology: str
    chips: int = 4


# names as in libtpu 0.0.42; one chip alone is none of its topologies
TPUS = {
    "tpu-v4": TpuChip("tpu-v4", "v4:2x2x1"),
    "tpu-v5e": TpuChip("tpu-v5e", "v5e:2x2"),
    "tpu-v5p": TpuChip("tpu-v5p", "v5:2x2x1"),
    "tpu-v6e": TpuChip("tpu-v6e", "v6e:2x2"),
}
