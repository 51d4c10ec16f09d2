"""What `synthesize` gives: the network as a design, its proof, and what a chip makes of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import Enum
from pathlib import Path

from vivace.core.quality import Quality, QualityVerdict
from vivace.hardware.chip.energy import Energy
from vivace.hardware.chip.fold import Estimate
from vivace.hardware.chip.place import Placement, Resources
from vivace.hardware.proof.simulate import Proof


class Status(Enum):
    """How a synthesis ended. The value is the phrase for people."""

    PLACED = "placed and routed"
    SYNTHESIZED = "synthesized, not placed"
    REFUSED = "the integers lose too much quality"
    UNCERTIFIED = "quality uncertified"

    @staticmethod
    def of(verdict: QualityVerdict) -> Status:
        """What a verdict on the integers means, before anything is placed."""
        kept = Status.SYNTHESIZED if verdict is QualityVerdict.HELD else Status.UNCERTIFIED
        return Status.REFUSED if verdict is QualityVerdict.NOT_HELD else kept

    @property
    def exit_code(self) -> int:
        """The command line's exit code: 0, or 4 where quality could not be certified."""
        return 4 if self in (Status.REFUSED, Status.UNCERTIFIED) else 0


@dataclasses.dataclass(frozen=True)
class StageRow:
    """One stage of the design: its layer, what it computes, bits of its weights (None without) and of its output, its
    multipliers, and for how many cycles one sample keeps it busy."""

    layer: str
    kind: str
    shape: tuple[int, int, int]
    weight_bits: int | None
    output_bits: int
    lanes: int
    cycles: int


@dataclasses.dataclass(frozen=True)
class FoldPoint:
    """One way to fold the network: cycles of its slowest stage, those from a sample's first element to its last answer,
    multipliers, and what it is estimated to take.

    PREDICTED, but for the cycles. `chosen` is the one that was built.
    """

    cycles: int
    latency: int
    lanes: int
    estimate: Estimate
    chosen: bool


@dataclasses.dataclass(frozen=True)
class Synthesis:
    """A network on a chip.

    `latency_seconds` is from the first input of a sample to its last output, and `samples_per_second` what comes out
    when samples follow each other, both SIMULATED in cycles and at the median frequency of the placed seeds; None where
    the design was not placed. `energy` of one sample is PREDICTED by the model that `energy_model` states. `quality` is
    of the integers against the original. `seconds` is what each step took here, `likely_placing_seconds` what the
    placing of all seeds was estimated to take (PREDICTED). `out` holds the files.
    """

    name: str
    chip: str
    status: Status
    quality: Quality
    weight_bits: int
    activation_bits: int
    stages: tuple[StageRow, ...] = ()
    front: tuple[FoldPoint, ...] = ()
    latency_cycles: int | None = None
    interval_cycles: float | None = None
    proof: Proof | None = None
    resources: Resources | None = None
    placement: Placement | None = None
    likely_placing_seconds: float | None = None
    latency_seconds: float | None = None
    samples_per_second: float | None = None
    energy: Energy | None = None
    energy_model: str = ""
    bitstream: str | None = None
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    conditions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    out: Path | None = None

    @property
    def megahertz(self) -> float | None:
        """The median frequency of the seeds; None where the design was not placed."""
        return None if self.placement is None else self.placement.median
