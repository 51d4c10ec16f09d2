"""The fitted laws that the package carries, with the bounds of what was measured, beyond which a prediction refuses."""

from __future__ import annotations

import dataclasses
import functools
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vivace.core.prediction.work import Transformer
from vivace.devices.catalog import Device, devices
from vivace.devices.prediction.fitting import Vector, factor95
from vivace.devices.prediction.pod_rate import PodLaw
from vivace.devices.prediction.shapes import Shape, ShapeErrors
from vivace.devices.prediction.step_time import StepFit

FILE = Path(__file__).parents[1] / "fitted.toml"
Bounds = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Beyond:
    """How a law that sums over parts of a step goes on above its bounds: up to `reach` times them, with an interval
    wider by `factor` and by the distance (1 at the bound) to the power of `exponent`. Most laws stop there."""

    reach: float = 1.0
    exponent: float = 0.0
    factor: float = 1.0


@dataclasses.dataclass(frozen=True)
class Law:
    """One fitted law: logarithms of its parameters, the factor that held 95% of measurements that a fit had not seen,
    what was measured, and between which bounds, by name."""

    parameters: Vector
    factor95: float
    source: str
    bounds: Mapping[str, Bounds]
    beyond: Beyond = Beyond()

    def refusal(self, **values: float) -> str:
        """Why these values lie further from what was measured than the law goes; empty where they do not.

        >>> Law(np.zeros(1), 1.1, "", {"devices": (2, 8)}).refusal(devices=16)
        'no measurement of devices 16; measured are 2 to 8'
        """
        reach = self.beyond.reach
        for name, value in values.items():
            low, high = self.bounds[name]
            if not low <= value <= reach * high:
                told = f"no measurement of {name.replace('_', ' ')} {value:g}; measured are {low:g} to {high:g}"
                return told + (f", and {reach:g} times that is the most that is predicted" if reach > 1 else "")
        return ""

    def widening(self, **values: float) -> float:
        """The factor by which the interval is wider for values above those that were measured; 1.0 where none is.

        >>> Law(np.zeros(1), 1.1, "", {"operators": (0, 100)}, Beyond(4.0, 0.5)).widening(operators=400)
        2.0
        """
        distance = max(value / self.bounds[name][1] for name, value in values.items())
        return float(self.beyond.factor * distance**self.beyond.exponent) if distance > 1 else 1.0


@dataclasses.dataclass(frozen=True)
class Pods:
    """The law of TPU slices: `law` has its interval and bounds; `elsewhere_factor95` is that of another generation;
    `counts` and `slices` are the chips that were measured, together and at the most in one slice, by device."""

    law: Law
    shares: PodLaw
    elsewhere_factor95: float
    counts: Mapping[str, Bounds]
    slices: Mapping[str, int]

    def slice_of(self, device: Device) -> int | None:
        """Chips of a slice: the largest measured, or what the catalogue says of a generation that was not."""
        linked = device.value("domain_devices")
        return self.slices.get(device.key, None if linked is None else int(linked))

    def counts_of(self, device: Device) -> Bounds:
        """Between how many chips were measured; of any generation where not of this."""
        every = self.counts.values()
        return self.counts.get(device.key, (min(low for low, _ in every), max(high for _, high in every)))


@dataclasses.dataclass(frozen=True)
class Laws:
    """All that is stored. `steps` is of transformers in one node of `step_device`, with what shapes take beside it
    (`step_shapes`) and the interval of shapes that were not measured; `scaling` of sharded trainings on the devices in
    `scaling_devices` (least and most of them); `rates` of transformers on each such device; `operators` of single
    devices of a kind, measured on one of them; `pods` of transformers on TPUs; `processes` of one machine, where a bare
    message took `processes_latency_seconds`, with the interval of another machine."""

    steps: Law
    step_shapes: ShapeErrors
    step_device: str
    step_elsewhere_factor95: float
    scaling: Law
    scaling_devices: Mapping[str, Bounds]
    rates: Mapping[str, Law]
    operators: Mapping[str, Law]
    operator_devices: Mapping[str, str]
    pods: Pods
    processes: Law
    processes_latency_seconds: float

    @property
    def step_fit(self) -> StepFit:
        """The law of steps, as it computes them."""
        return StepFit(self.steps.parameters, self.step_shapes)

    def operator_law(self, device: Device) -> tuple[Law, str] | None:
        """The law for single devices of this one's kind, with the words for what its interval rests on; None where none
        of the kind was measured.

        On another device than the measured one, products are scaled by the best shares that are known of both, and the
        interval is wider by the factor within which such shares lie around their median.
        """
        law, own = self.operators.get(device.kind), self.operator_devices.get(device.kind, "")
        if law is None:
            return None
        if device.key == own:
            return law, f"measured on {own}: {law.source}"
        spread = share_factor95(product_shares())
        scaled = dataclasses.replace(law, factor95=law.factor95 * spread, parameters=_scaled(law, device.key, own))
        return scaled, f"measured on {own}, not on {device.key}: interval widened by {spread:.2f}"


def _scaled(law: Law, key: str, own: str) -> Vector:
    """The law's parameters with the share that narrow products reach changed as the best known shares differ."""
    shares = product_shares()
    if key not in shares or own not in shares:
        return law.parameters
    parameters = law.parameters.copy()
    parameters[0] += math.log(shares[key] / shares[own])
    return parameters


@functools.cache
def product_shares() -> dict[str, float]:
    """The share of the dense peak in bf16 that the best timed product reached, by device, where both are known."""
    found = {}
    for key, one in devices().items():
        reached, dense = one.value("reached_bf16_tflops"), one.value("dense_bf16_tflops")
        if reached and dense:
            found[key] = reached / dense
    return found


def share_factor95(shares: Mapping[str, float]) -> float:
    """The factor around their median that holds the shares."""
    logs = np.log(list(shares.values()))
    return factor95(logs - np.median(logs))


@functools.cache
def laws() -> Laws:
    """What the package carries. The file is written by benchmarks/predicting.py."""
    return read(FILE.read_text(encoding="utf-8"))


def read(text: str) -> Laws:
    """The laws of a file's text."""
    node = tomllib.loads(text)
    steps, scaling = node["step_time"], node["sharded_scaling"]
    return Laws(
        steps=_law(steps),
        step_shapes=ShapeErrors({Shape(*map(int, shape)): weight for *shape, weight in steps["shapes"]}),
        step_device=steps["device"],
        step_elsewhere_factor95=steps["elsewhere_factor95"],
        scaling=_law(scaling),
        scaling_devices={name: tuple(bounds) for name, bounds in scaling["devices"].items()},
        rates={name: _law(entry) for name, entry in node["training_rate"].items()},
        operators={name: _law(entry) for name, entry in node.get("operators", {}).items()},
        operator_devices={name: entry["device"] for name, entry in node.get("operators", {}).items()},
        pods=_pods(node["pod_rate"]),
        processes=_law(node["processes"]),
        processes_latency_seconds=node["processes"]["latency_seconds"],
    )


def _pods(entry: Mapping[str, Any]) -> Pods:
    slices, weights = entry["parameters"]
    counts = {name: (float(low), float(high)) for name, (low, high) in entry["chips"].items()}
    return Pods(_law(entry), PodLaw(entry["own"], slices, weights), entry["elsewhere_factor95"], counts, entry["slice"])


def transformer_refusal(law: Law, model: Transformer, **others: float) -> str:
    """Why a transformer lies beyond what a law was fitted to; empty where it does not."""
    sizes = {"width": model.width, "layers": model.layers, "sequence": model.sequence, **others}
    return law.refusal(**{name: value for name, value in sizes.items() if name in law.bounds})


def _law(entry: Mapping[str, Any]) -> Law:
    bounds = {name: (float(value[0]), float(value[1])) for name, value in entry.items() if _is_bounds(name, value)}
    beyond = Beyond(**entry["beyond"]) if "beyond" in entry else Beyond()
    return Law(np.array(entry["parameters"]), entry["factor95"], entry["source"], bounds, beyond)


def _is_bounds(name: str, value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and name not in ("parameters", "shapes")
