"""The step of a transformer's training over data, tensor and pipeline parallel devices of one node, as a fitted law."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from vivace.core.errors import UsageError
from vivace.core.prediction.layout import Layout
from vivace.core.prediction.work import Transformer
from vivace.devices.prediction.fitting import Vector, fitted
from vivace.devices.prediction.shapes import Shape, ShapeErrors, shape_errors, whitening

# The law's parameters: what is likely before any measurement, and how far from it they may be (a logarithm).
PARAMETERS: dict[str, tuple[float, float]] = {
    "efficiency": (0.6, 0.1),  # the share of the peak that large products reach
    "saturation": (3e5, 1.0),  # numbers of a device's share of activations at which products reach half of that
    "traffic": (1.0, 0.5),  # activation traffic over Korthikanti's count of what is kept
    "launch_seconds": (1.2e-3, 0.7),  # launching the operators of one layer, forward and backward
    "tensor_launch_seconds": (0.3e-3, 0.7),  # more of it for each further tensor-parallel device
    "tensor_rate": (0.7, 0.5),  # the share of the link's rate that all-reduces of activations reach
    "tensor_latency_seconds": (2e-5, 1.0),  # of one such all-reduce, for each device
    "pipeline_latency_seconds": (2e-4, 1.0),  # of handing a micro-batch on
    "data_rate": (0.7, 0.5),  # the share of the link's rate that the all-reduce of gradients reaches
    "update_traffic": (1.0, 0.7),  # the optimizer's traffic over 20 bytes a weight
    "step_seconds": (1e-2, 1.0),  # once a step
    "head": (0.5, 0.5),  # what the last product and the loss take more than their operations say
}
PRIOR: Vector = np.log([value for value, _ in PARAMETERS.values()])
SPREAD: Vector = np.array([spread for _, spread in PARAMETERS.values()])
SHARPNESS = 8.0
"""Device and host work side by side, and the slower one sets the pace: a smooth maximum of this order."""
ALL_REDUCES = 4
"""Of activations in a layer, two each way. Source: Shoeybi and others, Megatron-LM, arXiv 1909.08053."""


@dataclasses.dataclass(frozen=True)
class Rates:
    """What one device does, by its data sheet: operations a second, bytes a second of memory, and of its links in one
    direction."""

    flops: float
    memory_bytes: float
    link_bytes: float


@dataclasses.dataclass(frozen=True)
class Run:
    """One training to be predicted: a model, the samples of a step, and how it is spread."""

    model: Transformer
    batch: int
    layout: Layout

    @property
    def shape(self) -> Shape:
        """What decides the sizes of a layer's operators."""
        tokens = self.layout.micro_batch * self.model.sequence
        return Shape(self.layout.tensor, tokens, self.model.width)

    @property
    def micro_batches(self) -> int:
        """Micro-batches of one step that each pipeline takes. Raises UsageError where they do not come out even."""
        each = self.layout.data * self.layout.micro_batch
        if self.batch % each:
            raise UsageError(
                f"a batch of {self.batch} cannot be divided by data {self.layout.data} x micro-batch "
                f"{self.layout.micro_batch}; give a multiple of {each}"
            )
        return self.batch // each


@dataclasses.dataclass(frozen=True)
class StepFit:
    """A fitted law: logarithms of parameters in the order of PARAMETERS, and what shapes take beside it."""

    parameters: Vector
    shapes: ShapeErrors = dataclasses.field(default_factory=ShapeErrors)


@dataclasses.dataclass(frozen=True)
class StepSeconds:
    """Seconds of each part of steps, one number for each run: what devices compute while the pipeline is full, idle
    time of the pipeline, gradients summed, and the update with what is done once a step."""

    layers: Vector
    bubble: Vector
    gradients: Vector
    update: Vector

    @property
    def total(self) -> Vector:
        """The whole step."""
        return self.layers + self.bubble + self.gradients + self.update


def step_seconds(fit: StepFit, runs: Sequence[Run], rates: Rates) -> StepSeconds:
    """Seconds of a step of each run, by a fit: what the law says, and what layers of the run's shape take beside it."""
    found = law_seconds(fit.parameters, runs, rates)
    known = {shape: fit.shapes.factor(shape) for shape in {run.shape for run in runs}}
    factors = np.array([known[run.shape] for run in runs])
    return dataclasses.replace(found, layers=found.layers * factors, bubble=found.bubble * factors)


def law_seconds(parameters: Vector, runs: Sequence[Run], rates: Rates) -> StepSeconds:
    """Seconds of a step of each run, by logarithms of parameters in the order of PARAMETERS.

    A layer takes max(device, host): device = products / (peak e) (1 + w0 / w) + traffic / bandwidth + all-reduces,
    with w the numbers of a device's share of a micro-batch's activations; host = launching. With m micro-batches over p
    stages a step takes (m + p - 1) times a stage, the last product m times, and then gradients and the update. Sources:
    Korthikanti and others, arXiv 2205.05198, for the bytes of activations; Narayanan and others, arXiv 2104.04473, for
    the pipeline.
    """
    p = dict(zip(PARAMETERS, np.exp(parameters), strict=True))
    c = _columns(runs)
    tokens = c["micro_batch"] * c["sequence"]
    numbers = tokens * c["width"] / c["tensor"]
    products = c["layer_flops"] / c["tensor"] / (rates.flops * p["efficiency"]) * (1 + p["saturation"] / numbers)
    kept = (10 + 24 / c["tensor"]) * tokens * c["width"] + 5 * c["heads"] * c["sequence"] * tokens / c["tensor"]
    traffic = p["traffic"] * 6 * kept / rates.memory_bytes
    others = c["tensor"] - 1
    passed = 2 * others / c["tensor"] * 2 * tokens * c["width"] / (rates.link_bytes * p["tensor_rate"])
    exchange = ALL_REDUCES * (passed + (others > 0) * p["tensor_latency_seconds"] * c["tensor"])
    host = p["launch_seconds"] + p["tensor_launch_seconds"] * others
    device = products + traffic + exchange
    layer = (device**SHARPNESS + host**SHARPNESS) ** (1 / SHARPNESS)
    head = c["head_flops"] / c["tensor"] / (rates.flops * p["efficiency"]) * (1 + p["head"])
    stage = layer * c["layers"] / c["pipeline"] + (c["pipeline"] > 1) * p["pipeline_latency_seconds"]
    held = (c["layer_parameters"] * c["layers"] / c["pipeline"] + c["head_parameters"]) / c["tensor"]
    summed = 2 * (c["data"] - 1) / c["data"] * 2 * held / (rates.link_bytes * p["data_rate"])
    return StepSeconds(
        layers=c["micro_batches"] * (stage + head),
        bubble=(c["pipeline"] - 1) * stage,
        gradients=summed,
        update=p["update_traffic"] * 20 * held / rates.memory_bytes + p["step_seconds"],
    )


def fit_steps(runs: Sequence[Run], seconds: Vector, rates: Rates) -> StepFit:
    """What these measured steps imply: first the law's parameters, then from what they leave what shapes take."""
    measured, shapes = np.log(seconds), [run.shape for run in runs]
    apart = whitening(shapes)
    found = fitted(lambda theta: apart @ (np.log(law_seconds(theta, runs, rates).total) - measured), PRIOR, SPREAD, 1.0)
    left = measured - np.log(law_seconds(found, runs, rates).total)
    return StepFit(found, shape_errors(shapes, left))


def left_out_errors(runs: Sequence[Run], seconds: Vector, rates: Rates) -> Vector:
    """log(predicted / measured) of each measurement by a fit to all others: what `factor95` makes an interval of."""
    errors = []
    for place, run in enumerate(runs):
        rest = [other for number, other in enumerate(runs) if number != place]
        found = fit_steps(rest, np.delete(seconds, place), rates)
        errors.append(float(np.log(step_seconds(found, [run], rates).total[0] / seconds[place])))
    return np.array(errors)


def _columns(runs: Sequence[Run]) -> dict[str, Vector]:
    """The numbers of the runs that the law uses, each as one array; products are of forward and backward together."""
    rows = [
        {
            "micro_batch": run.layout.micro_batch,
            "micro_batches": run.micro_batches,
            "data": run.layout.data,
            "tensor": run.layout.tensor,
            "pipeline": run.layout.pipeline,
            "layers": run.model.layers,
            "width": run.model.width,
            "heads": run.model.heads,
            "sequence": run.model.sequence,
            "layer_parameters": run.model.layer_parameters,
            "head_parameters": run.model.vocabulary * run.model.width,
            "layer_flops": 3 * run.layout.micro_batch * run.model.layer_flops,
            "head_flops": 6.0 * run.layout.micro_batch * run.model.sequence * run.model.vocabulary * run.model.width,
        }
        for run in runs
    ]
    return {name: np.array([row[name] for row in rows], dtype=np.float64) for name in rows[0]}
