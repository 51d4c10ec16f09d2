"""The cycle model against a published chip: TPU v1, in tera-operations a second.

Jouppi et al., "In-datacenter performance analysis of a tensor processing unit", ISCA 2017, tables 1 (operations for
each byte of weights) and 3. The chip has 256 x 256 elements with weights at rest, 700 MHz, 34 GB/s of memory for
weights and 28 MiB for activations. A workload is modelled as whole tiles of weights, through which as many rows pass as
the paper counts operations for each byte of weights.
"""

from __future__ import annotations

import dataclasses

from vivace.hardware.array.chip import Chip, Dataflow
from vivace.hardware.array.cycles import Gemm
from vivace.hardware.array.memory import Board, time_of

CHIP = Chip(256, 256, Dataflow.WEIGHT)
BOARD = Board(hertz=700e6, bandwidth=34e9, buffer_bytes=28 << 20)


@dataclasses.dataclass(frozen=True)
class Published:
    """A workload: rows for each tile of weights, and TOPS as published; `irregular` says why the model is far off."""

    name: str
    rows: int
    tera_operations: float
    irregular: str = ""

    @property
    def predicted(self) -> float:
        """TOPS of the model, a product with its sum as two operations.

        >>> round(TPU_V1[0].predicted, 1)
        13.6
        """
        gemm = Gemm(self.rows, 16 * CHIP.columns, 16 * CHIP.rows)
        return 2 * gemm.products / (time_of(gemm, CHIP, BOARD).cycles / BOARD.hertz) / 1e12

    @property
    def error(self) -> float:
        """Predicted over published, less 1."""
        return self.predicted / self.tera_operations - 1

    def sentence(self) -> str:
        """The comparison for a reader."""
        why = f": {self.irregular}" if self.irregular else ""
        return f"{self.name}: {self.predicted:.1f} TOPS, {self.tera_operations:g} published ({self.error:+.0%}){why}"


TPU_V1 = (
    Published("MLP0", 200, 12.3),
    Published("MLP1", 168, 9.7),
    Published("LSTM0", 64, 3.7),
    Published("CNN0", 2888, 86.0),
    Published(
        "LSTM1", 96, 2.8, "matrices that do not fill tiles of 256 x 256 (600 x 600 fills its nine to 61%), and gates "
        "that wait for one another",
    ),
    Published(
        "CNN1", 1750, 14.1, "many layers are too shallow to fill 256 rows, and four fully connected ones wait for "
        "weights for a third of the time",
    ),
)  # fmt: skip
