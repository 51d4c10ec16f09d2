"""What `synthesize` gives for a TPU: the network as StableHLO, and what the chip's own compiler says of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import Enum
from pathlib import Path

from vivace.hardware.chip.tpus import Mesh


class TpuStatus(Enum):
    """How a compilation ended. The value is the phrase for people."""

    COMPILED = "compiled for the chip"
    TOO_LARGE = "does not fit the chip's memory"
    WRITTEN = "written as StableHLO, not compiled"

    @property
    def exit_code(self) -> int:
        """The command line's exit code: 0; 2 for a network that does not fit, 5 without the compiler."""
        return {TpuStatus.COMPILED: 0, TpuStatus.TOO_LARGE: 2, TpuStatus.WRITTEN: 5}[self]


@dataclasses.dataclass(frozen=True)
class Collective:
    """What the chips of a mesh send each other in one way: how often in a call (once for a loop), and the bytes of its
    results that one chip holds."""

    kind: str
    count: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class SplitWeight:
    """A weight of a network on a mesh, and the dimension along which it is split; None: whole on every chip."""

    name: str
    shape: tuple[int, ...]
    dimension: int | None


@dataclasses.dataclass(frozen=True)
class MeshCheck:
    """The sharded program beside the original, MEASURED on so many devices of XLA's CPU back end in place of chips.

    `relative_error` is the largest difference as a share of the largest answer.
    """

    devices: int
    relative_error: float
    compared: int


@dataclasses.dataclass(frozen=True)
class Bfloat16Check:
    """The network in bfloat16 (as the technique of that name makes it) judged by float64, MEASURED on XLA's CPU.

    `error` is XLA's and `own_error` PyTorch's, each the root mean square of the difference from float64 as a share of
    float64's own. `holds`: XLA's is at most twice PyTorch's, beside the tolerance that `reason` tells where it is not.
    """

    error: float
    own_error: float
    holds: bool
    reason: str


@dataclasses.dataclass(frozen=True)
class TpuEstimate:
    """What the compiler says of one call on one of its devices, all of it PREDICTED; of a mesh, on each chip.

    `products` is how float32 matrices are multiplied: "float32" in six passes, "bfloat16" in one, which rounds inputs
    to 8 bits. Bytes are of the device's memory: arguments are weights and inputs. `seconds` is the compiler's own
    estimate of the time, without the `unpriced` operations for which it has none; `flops` and `accessed_bytes` are its
    counts. All three are of one turn of each of the `loops` (recurrent layers). `collectives` are what it inserted
    for a mesh.
    """

    products: str
    argument_bytes: int
    output_bytes: int
    temporary_bytes: int
    code_bytes: int
    flops: float
    accessed_bytes: float
    seconds: float
    unpriced: int = 0
    loops: int = 0
    collectives: tuple[Collective, ...] = ()

    @property
    def held_bytes(self) -> int:
        """All that lies in the device's memory during a call.

        >>> TpuEstimate("float32", 4, 3, 2, 1, 0.0, 0.0, 0.0).held_bytes
        10
        """
        return self.argument_bytes + self.output_bytes + self.temporary_bytes + self.code_bytes


@dataclasses.dataclass(frozen=True)
class TpuCompilation:
    """A network for a TPU, as one of its devices would run it.

    `batch` samples are in the call that was compiled. `relative_error` is the largest difference between the program on
    XLA's CPU back end and the original, as a share of the largest answer, MEASURED on `compared` calls.
    `memory_bytes` is what a device of the chip has, `devices` how many of them a chip is for the compiler. `estimates`
    is empty where the compiler is not installed. `out` is an artifact that `load` opens on whatever JAX finds.

    `bfloat16` is None where the network has no float64 form or no product to round. With a `mesh`, `splits` says how
    each weight lies on it and `mesh_check` how the sharded program answered; `topology` is the compiler's name of the
    slice.
    """

    name: str
    chip: str
    status: TpuStatus
    batch: int
    relative_error: float
    compared: int
    memory_bytes: float | None
    devices: int | None = None
    estimates: tuple[TpuEstimate, ...] = ()
    bfloat16: Bfloat16Check | None = None
    mesh: Mesh | None = None
    topology: str = ""
    splits: tuple[SplitWeight, ...] = ()
    mesh_check: MeshCheck | None = None
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    conditions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    out: Path | None = None
