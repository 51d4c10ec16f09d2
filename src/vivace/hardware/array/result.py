"""What `synthesize` gives for an array: the network's layers on it, the proof, and the arrays that were not built."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from vivace.core.quality import Quality
from vivace.hardware.array.area import Area
from vivace.hardware.array.chip import Chip
from vivace.hardware.array.energy import ArrayEnergy, energy_of
from vivace.hardware.array.layers import ArrayLayer
from vivace.hardware.array.memory import Board, time_of
from vivace.hardware.array.simulate import Checked
from vivace.hardware.array.sweep import SweepPoint
from vivace.hardware.result import Status


@dataclasses.dataclass(frozen=True)
class LayerRow:
    """A layer on the array, for the batch: its product, its cycles with and without waiting, and its energy (joules).

    `cycles` and `energy` are PREDICTED; `compute_cycles` is the closed form that the simulated array agrees with.
    """

    layer: str
    rows: int
    columns: int
    depth: int
    groups: int
    sparse: bool
    compute_cycles: int
    cycles: float
    utilization: float
    memory_bound: bool
    bytes: float
    energy: float


def rows_of(layers: Sequence[ArrayLayer], chip: Chip, board: Board) -> tuple[tuple[LayerRow, ...], ArrayEnergy]:
    """Every layer on a chip, and the energy of all."""
    energy, rows = ArrayEnergy(0.0, 0.0, 0.0, 0.0), []
    for layer in layers:
        time = time_of(layer.gemm, chip, board)
        own = energy_of(layer.gemm, chip, board, time)
        energy += own
        m, n, k, groups = layer.gemm.sizes
        rows.append(
            LayerRow(
                layer.name, m, n, k, groups, layer.gemm.sparse and chip.sparse, time.compute_cycles, time.cycles,
                time.utilization, time.memory_bound, time.bytes, own.value,
            )
        )  # fmt: skip
    return tuple(rows), energy


@dataclasses.dataclass(frozen=True)
class ChipPrediction:
    """A network on one chip at one bandwidth (bytes a second), PREDICTED: cycles and seconds of a batch, its energy,
    gates of the array without its memories, and the layers, of which some wait for memory."""

    chip: str
    bandwidth: float
    cycles: float
    seconds: float
    energy: ArrayEnergy
    gates: float
    layers: tuple[LayerRow, ...]

    @property
    def memory_bound(self) -> tuple[str, ...]:
        """The layers that memory limits, in order."""
        return tuple(row.layer for row in self.layers if row.memory_bound)


@dataclasses.dataclass(frozen=True)
class ArrayPrediction:
    """What a network would take on systolic arrays, PREDICTED from the shapes of its products; nothing was built.

    `batch` samples are in the call that was counted. `chips` has every chip that was asked for at each bandwidth;
    `points` all that were compared, each marked whether another one at its bandwidth is as good in time, energy and
    gates and better in one. `beside` says how often each operation occurs that is not the array's and is not counted.
    """

    name: str
    batch: int
    board: Board
    chips: tuple[ChipPrediction, ...]
    points: tuple[SweepPoint, ...]
    beside: Mapping[str, int]
    energy_model: str
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class ArrayProof:
    """What the simulated array computed: one product a layer, each sum and each cycle as told. SIMULATED.

    `chip` is the array that was simulated: the one asked for, or a smaller one from the same templates where that would
    take too long to compile. `whole` counts the layers that ran whole; of the others it was a part, whose sizes each
    entry gives, and of a layer in groups the first one.
    """

    chip: str
    products: tuple[Checked, ...]
    whole: int

    @property
    def sums(self) -> int:
        """All sums that were compared."""
        return sum(one.sums for one in self.products)

    @property
    def cycles(self) -> int:
        """All cycles that were simulated."""
        return sum(one.cycles + 1 for one in self.products)


@dataclasses.dataclass(frozen=True)
class ArraySynthesis:
    """A network on a systolic array.

    `cycles`, `latency_seconds` and `energy` are of one batch of `batch` samples, PREDICTED with the memory of `board`;
    `proof` is SIMULATED. `gates` are of the array without its memories. `beside` names the operations that the array
    does not do and whose time is not counted. `accumulator_bytes` is what the sums of the largest layer take.
    """

    name: str
    chip: str
    status: Status
    quality: Quality
    weight_bits: int
    activation_bits: int
    board: Board
    batch: int
    layers: tuple[LayerRow, ...] = ()
    beside: tuple[str, ...] = ()
    proof: ArrayProof | None = None
    cycles: float | None = None
    latency_seconds: float | None = None
    samples_per_second: float | None = None
    energy: ArrayEnergy | None = None
    energy_model: str = ""
    accumulator_bytes: int = 0
    element: Area | None = None
    gates: float | None = None
    sweep: tuple[SweepPoint, ...] = ()
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    conditions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    out: Path | None = None
