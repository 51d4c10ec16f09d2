"""The roofline operator by operator: what a step takes on one device of the catalogue, at fitted efficiencies."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from vivace.core.prediction.layout import Parts
from vivace.core.prediction.work import Operator, OperatorKind
from vivace.devices.catalog import Device
from vivace.devices.prediction.fitting import Vector, fitted

# A law of one kind of device: what is likely before any measurement, and how far from it it may be (a logarithm).
PARAMETERS: dict[str, tuple[float, float]] = {
    "narrow_products": (0.7, 0.3),  # the share of the peak that products in bf16 and f16 reach
    "wide_products": (0.7, 0.3),  # in f32
    "convolutions": (0.6, 0.5),  # what convolutions reach of what products do
    "traffic": (0.85, 0.2),  # the share of the memory's rate
    "kernel_seconds": (4e-6, 0.7),  # on the device, for each operator
    "launch_seconds": (1e-5, 0.7),  # on the host, for each operator of a call
    "update_launch_seconds": (2e-5, 0.7),  # of an update, where gradients are recorded
    "call_seconds": (2e-5, 0.7),  # on the host, for each step
}
PRIOR: Vector = np.log([value for value, _ in PARAMETERS.values()])
SPREAD: Vector = np.array([spread for _, spread in PARAMETERS.values()])
SCALE = 0.1
SHARPNESS = 8.0
"""Host and device work side by side: a smooth maximum of this order."""
NARROW = frozenset({"bf16", "f16", "fp8", "int8", "fp4"})


@dataclasses.dataclass(frozen=True)
class Peaks:
    """What a device's data sheet allows in one precision: operations a second of products and of convolutions, and
    bytes a second of memory."""

    precision: str
    product_flops: float
    convolution_flops: float
    memory_bytes: float


def peaks_of(device: Device, precision: str) -> Peaks | None:
    """The peaks of a device, None where the catalogue lacks one.

    Convolutions in f32 use TF32 where there is such a rate, as PyTorch lets them by default.
    """
    flops, memory = device.dense_flops(precision), device.memory_bytes_per_second
    if flops is None or memory is None:
        return None
    narrow = device.dense_flops("tf32") if precision == "f32" else None
    return Peaks(precision, flops, narrow or flops, memory)


def floor_seconds(operators: Sequence[Operator], peaks: Peaks, weight_bytes: float) -> float:
    """The least that the peaks allow: all products at the peak, every weight read once; nothing launched.

    Source: Williams, Waterman and Patterson, "Roofline", Communications of the ACM 52(4), 2009.
    """
    flops = {kind: sum(one.flops for one in operators if one.kind is kind) for kind in OperatorKind}
    arithmetic = flops[OperatorKind.PRODUCT] / peaks.product_flops
    arithmetic += flops[OperatorKind.CONVOLUTION] / peaks.convolution_flops
    return max(arithmetic, weight_bytes / peaks.memory_bytes)


def is_recurrent(name: str) -> bool:
    """Whether an operator is a layer, or a cell, of steps that wait for one another.

    >>> [is_recurrent(name) for name in ("lstm", "_thnn_fused_gru_cell", "mkldnn_rnn_layer", "mm")]
    [True, True, True, False]
    """
    return any(word in name for word in ("lstm", "gru", "rnn"))


def parts_of(operators: Sequence[Operator], peaks: Peaks, parameters: Vector, *, is_update: bool = False) -> Parts:
    """Where the seconds of a step go, by logarithms of parameters in the order of PARAMETERS.

    An operator takes k + max(flops / (peak e), bytes / (bandwidth e')) on the device; all of them and a step cost the
    host n l + c. The step takes the larger of both, and what exceeds the operators' own time is launching.
    """
    p = dict(zip(PARAMETERS, np.exp(parameters), strict=True))
    arithmetic, memory, kernels = _device_seconds(operators, peaks, p)
    device = arithmetic + memory + kernels
    launch = p["update_launch_seconds"] if is_update else p["launch_seconds"]
    host = len(operators) * launch + p["call_seconds"]
    whole = float((device**SHARPNESS + host**SHARPNESS) ** (1 / SHARPNESS))
    return Parts(float(arithmetic), float(memory), max(0.0, whole - arithmetic - memory))


def seconds_of(parts: Parts) -> float:
    """The whole step."""
    return float(sum(getattr(parts, field.name) for field in dataclasses.fields(parts)))


@dataclasses.dataclass(frozen=True)
class Timed:
    """One measured step: its operators, the peaks of where it ran, its seconds, and whether it was an update."""

    operators: tuple[Operator, ...]
    peaks: Peaks
    seconds: float
    is_update: bool = False

    def predicted(self, parameters: Vector) -> float:
        """Its seconds by logarithms of parameters."""
        return seconds_of(parts_of(self.operators, self.peaks, parameters, is_update=self.is_update))


def fit_operators(timed: Sequence[Timed]) -> Vector:
    """The logarithms of parameters that measured steps imply."""
    measured = np.log([one.seconds for one in timed])

    def residuals(theta: Vector) -> Vector:
        return np.log([one.predicted(theta) for one in timed]) - measured

    return fitted(residuals, PRIOR, SPREAD, SCALE)


def _device_seconds(operators: Sequence[Operator], peaks: Peaks, p: Mapping[str, float]) -> tuple[float, float, float]:
    """Seconds of operators that arithmetic bounds, of those that memory does, and of starting kernels."""
    share = p["narrow_products"] if peaks.precision in NARROW else p["wide_products"]
    rate = {
        OperatorKind.PRODUCT: peaks.product_flops * share,
        OperatorKind.CONVOLUTION: peaks.convolution_flops * share * p["convolutions"],
        OperatorKind.OTHER: peaks.product_flops,
    }
    work = [(one.flops / rate[one.kind], one.moved_bytes / (peaks.memory_bytes * p["traffic"])) for one in operators]
    arithmetic = sum(flops for flops, moved in work if flops >= moved)
    memory = sum(moved for flops, moved in work if moved > flops)
    return arithmetic, memory, len(operators) * p["kernel_seconds"]
