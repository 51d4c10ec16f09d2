"""What `synthesize` gives for a TPU: the network as StableHLO, and what the chip's own compiler says of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import Enum
from pathlib import Path


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
class TpuEstimate:
    """What the compiler says of one call on one of its devices, all of it PREDICTED.

    `products` is how float32 matrices are multiplied: "float32" in six passes, "bfloat16" in one, which rounds inputs
    to 8 bits. Bytes are of the device's memory: arguments are weights and inputs. `seconds` is the compiler's own
    estimate of the time; `flops` and `accessed_bytes` are its counts.
    """

    products: str
    argument_bytes: int
    output_bytes: int
    temporary_bytes: int
    code_bytes: int
    flops: float
    accessed_bytes: float
    seconds: float

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
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    conditions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    out: Path | None = None
