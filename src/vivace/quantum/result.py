"""What `vivace quantum` found: a layer simulated, its resources and the model's, choices solved, words shown."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from vivace.quantum.choices.answer import Comparison
from vivace.quantum.layers.estimate import Simulation
from vivace.quantum.resources.break_even import LayerEstimate, Verdict
from vivace.quantum.words.demonstration import Demonstration


@dataclasses.dataclass(frozen=True)
class LayerShape:
    """A linear layer of the model: `outputs` rows of `elements` weights that meet inputs at `positions` places in a
    call."""

    label: str
    operator: str
    outputs: int
    elements: int
    positions: int

    @property
    def products(self) -> int:
        """How many inner products one call takes."""
        return self.outputs * self.positions


@dataclasses.dataclass(frozen=True)
class QuantumResult:
    """A layer, a model and its choices as quantum computations. Circuits that ran are SIMULATED, resources and times on
    machines PREDICTED, classical times MEASURED here.

    `simulations` are of the layer named `layer`; `kept_signal` is, for each of them, by which factor noise shrank its
    overlaps, None for an ideal one. `verdict` is the layer's and `model_verdict` that of all linear layers; None where
    no classical time was measured. `refused` says what was not simulated and why.
    """

    name: str
    layer: str
    layers: tuple[LayerShape, ...]
    simulations: tuple[Simulation, ...]
    kept_signal: tuple[float | None, ...]
    estimates: tuple[LayerEstimate, ...]
    verdict: Verdict | None
    model_verdict: Verdict | None
    choices: tuple[Comparison, ...]
    words: tuple[Demonstration, ...]
    refused: tuple[str, ...]
    notes: tuple[str, ...]
    conditions: dict[str, Any]
    out: Path | None = None

    @property
    def estimate(self) -> LayerEstimate | None:
        """What the chosen layer takes."""
        return next((one for one in self.estimates if one.work.layer == self.layer), None)
