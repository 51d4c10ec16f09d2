"""The TPUs that programs are compiled for ahead of time: how Google's compiler names chips of each kind together."""

from __future__ import annotations

import dataclasses
import math

from vivace.core.errors import UsageError

AXES = ("data", "tensor")
"""Of a mesh: parts of the batch, and parts of the weights."""
MOST_TENSOR = 16
_FLAT = ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBE = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4")


@dataclasses.dataclass(frozen=True)
class Mesh:
    """Chips that run one program together: `data` parts of the batch, and for each `tensor` parts of the weights."""

    data: int = 1
    tensor: int = 1

    @property
    def chips(self) -> int:
        """How many chips it has.

        >>> Mesh(data=2, tensor=4).chips
        8
        """
        return self.data * self.tensor


@dataclasses.dataclass(frozen=True)
class TpuChip:
    """A kind of TPU: its key in the catalogue of devices, and the slices of several chips that there are of it.

    `config` is how the compiler is to use a chip, where it knows several ways: both cores of a v4 as one device
    ("megacore") is how JAX runs it.

    >>> TPUS["tpu-v5e"].topology, TPUS["tpu-v5e"].chips
    ('v5e:2x2', 4)
    >>> TPUS["tpu-v5e"].slice_of(Mesh(data=2, tensor=4))
    'v5e:2x4'
    """

    name: str
    prefix: str
    slices: tuple[str, ...]
    config: str | None = None

    @property
    def topology(self) -> str:
        """The smallest group of chips that the compiler knows: one chip alone is none of its topologies."""
        return f"{self.prefix}:{self.slices[0]}"

    @property
    def chips(self) -> int:
        """How many that are."""
        return _chips(self.slices[0])

    def slice_of(self, mesh: Mesh) -> str:
        """The slice that a mesh fills. Raises UsageError where there is none of so many chips, with what there is."""
        if mesh.chips == 1:
            return self.topology
        sizes = {_chips(one): one for one in self.slices}
        if mesh.chips not in sizes:
            told = ", ".join(map(str, sizes))
            raise UsageError(
                f"mesh (--mesh) data={mesh.data},tensor={mesh.tensor} has {mesh.chips} chips; slices of {self.name} "
                f"have {told}: choose data and tensor so that their product is one of these"
            )
        return f"{self.prefix}:{sizes[mesh.chips]}"


def _chips(topology: str) -> int:
    return math.prod(map(int, topology.split("x")))


# names as in libtpu 0.0.42; slices as in https://docs.cloud.google.com/tpu/docs/v5e, v6e, v4 and v5p, read in Nov. 2026
TPUS = {
    "tpu-v4": TpuChip("tpu-v4", "v4", _CUBE, "megacore"),
    "tpu-v5e": TpuChip("tpu-v5e", "v5e", _FLAT),
    "tpu-v5p": TpuChip("tpu-v5p", "v5", _CUBE),
    "tpu-v6e": TpuChip("tpu-v6e", "v6e", _FLAT),
}


def mesh_of(text: str) -> Mesh:
    """A mesh as a user writes it. Raises UsageError for anything else.

    >>> mesh_of("data=2,tensor=4"), mesh_of("tensor=8")
    (Mesh(data=2, tensor=4), Mesh(data=1, tensor=8))
    """
    parts: dict[str, int] = {}
    for word in text.split(","):
        name, _, count = (part.strip() for part in word.partition("="))
        if name not in AXES or name in parts or not count.isdecimal() or not 0 < int(count) <= 1024:
            raise UsageError(
                f"mesh (--mesh) received {text!r}; allowed is data=N,tensor=M, one of them alone too, such as "
                "data=2,tensor=4: parts of the batch, and of the weights"
            )
        parts[name] = int(count)
    mesh = Mesh(**parts)
    if mesh.tensor > MOST_TENSOR:
        raise UsageError(
            f"mesh (--mesh) asks for tensor={mesh.tensor}; allowed are 1 to {MOST_TENSOR} parts of a weight"
        )
    return mesh
