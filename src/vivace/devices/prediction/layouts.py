"""Ranks the ways to spread a transformer's training over devices: which fit, how long each takes, why others lose."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from vivace.core.errors import UsageError
from vivace.core.measurement import Interval
from vivace.core.prediction.layout import Layout, Memory, Parts, divisors
from vivace.core.prediction.work import Transformer
from vivace.devices.catalog import Device
from vivace.devices.prediction.fitting import around
from vivace.devices.prediction.measured import Laws, transformer_refusal
from vivace.devices.prediction.memory import transformer_memory
from vivace.devices.prediction.step_time import Rates, Run, step_seconds
from vivace.devices.prediction.training_rate import Trained, sample_rate

RECOMPUTED = 4 / 3
"""What computing each layer once more takes: a fourth pass beside one forward and two backward ones."""
MICRO_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)


class CannotRun(UsageError):
    """No layout could run, measured or not: none divides, or the model fits in none."""


@dataclasses.dataclass(frozen=True)
class Planned:
    """One layout: its step, PREDICTED, what a device holds, where the time goes, and why it is out; `seconds` is None
    and `reason` says why where it does not fit or lies beyond every measurement. `law` names the measurements."""

    layout: Layout
    memory: Memory
    seconds: Interval | None = None
    parts: Parts | None = None
    reason: str = ""
    law: str = ""


@dataclasses.dataclass(frozen=True)
class Plan:
    """The layouts that fit and could be predicted, fastest first, and how often each reason put one out."""

    device: str
    ranked: tuple[Planned, ...]
    refused: tuple[tuple[str, int], ...]
    considered: int

    def lost(self, place: int) -> str:
        """Why the layout at this place takes longer than the first."""
        best, other = self.ranked[0], self.ranked[place]
        assert best.seconds and other.seconds and best.parts and other.parts
        more = {
            field.name.removesuffix("_seconds"): getattr(other.parts, field.name) - getattr(best.parts, field.name)
            for field in dataclasses.fields(Parts)
        }
        most = max(more, key=lambda name: more[name])
        ratio = f"{other.seconds.value / best.seconds.value:.2f} times the first"
        if other.law != best.law:
            apart = "" if other.seconds.low > best.seconds.high else ", and the intervals overlap"
            return f"{ratio}, measured with other code (first: {best.law}; this: {other.law}){apart}"
        if more[most] <= 0:
            return f"{ratio}: nothing that is modelled differs; it holds {_gigabytes(other)} a device"
        return f"{ratio}: {_WORDS[most]} takes {more[most] * 1e3:.3g} ms more"


_WORDS = {
    "arithmetic": "computing",
    "memory": "moving numbers in memory",
    "launch": "launching operators",
    "communication": "communication",
    "bubble": "waiting in the pipeline",
}


def layouts_of(model: Transformer, batch: int, devices: int) -> Iterator[Layout]:
    """Every layout of so many devices that divides the model and the batch: tensor the heads, pipeline the layers, data
    times micro-batch the batch. Weights and gradients are sharded in a pipeline of one stage only, as FSDP does."""
    for tensor in divisors(devices):
        for pipeline in divisors(devices // tensor):
            data = devices // tensor // pipeline
            if model.heads % tensor or model.layers % pipeline or batch % data:
                continue
            for micro_batch in (size for size in MICRO_BATCHES if batch % (data * size) == 0):
                for sharding in _shardings(data, pipeline):
                    for recompute in (False, True):
                        yield Layout(data, tensor, pipeline, sharding, micro_batch, recompute)


def plan(model: Transformer, batch: int, device: Device, devices: int, laws: Laws) -> Plan:
    """Rank the layouts of a batch on so many of a device.

    Raises UsageError for more devices than were measured together, and where all that fit lie beyond what was measured;
    CannotRun where no layout divides the model and the batch, with counts that one does, and where the model fits in
    none, with what is missing.
    """
    if devices > most_devices(device, laws):
        raise UsageError(beyond(device, laws))
    found = [_planned(model, batch, device, layout, laws) for layout in layouts_of(model, batch, devices)]
    if not found:
        raise CannotRun(
            f"no layout divides {devices} devices: heads={model.heads}, layers={model.layers} and a batch of {batch} "
            f"allow {', '.join(map(str, _counts_near(model, batch, devices))) or 'no count near it'}"
        )
    ranked = sorted((one for one in found if one.seconds), key=lambda one: _value(one))
    refused = Counter(one.reason for one in found if one.seconds is None)
    if not ranked:
        raise _nothing_left(model, device, devices, found, refused)
    return Plan(device.key, tuple(ranked), tuple(refused.most_common()), len(found))


def _planned(model: Transformer, batch: int, device: Device, layout: Layout, laws: Laws) -> Planned:
    micro_batches = batch // (layout.data * layout.micro_batch)
    memory = transformer_memory(model, layout, micro_batches, device.memory_bytes)
    if memory.fits is False:
        return Planned(layout, memory, reason="does not fit into memory")
    if layout.tensor == layout.pipeline == 1 and layout.sharding == 3 and device.key in laws.rates:
        return _by_rate(model, batch, device, layout, memory, laws)
    return _by_steps(model, batch, device, layout, memory, laws)


def _by_rate(model: Transformer, batch: int, device: Device, layout: Layout, memory: Memory, laws: Laws) -> Planned:
    law = laws.rates[device.key]
    tokens = layout.micro_batch * model.sequence
    if reason := transformer_refusal(law, model, devices=layout.devices, tokens=tokens):
        return Planned(layout, memory, reason=reason)
    peak = device.dense_flops("bf16")
    assert peak is not None
    one = Trained(model, layout.devices, layout.micro_batch, layout.recompute)
    seconds = batch / (sample_rate(law.parameters, one, peak) * layout.devices)
    return Planned(layout, memory, around(seconds, law.factor95), Parts(arithmetic_seconds=seconds), law=law.source)


def _by_steps(model: Transformer, batch: int, device: Device, layout: Layout, memory: Memory, laws: Laws) -> Planned:
    law = laws.steps
    if device.key != laws.step_device:
        return Planned(layout, memory, reason=f"such layouts were measured on {laws.step_device} only")
    if layout.sharding > 1:
        return Planned(layout, memory, reason="only sharded optimizers and, where alone, full sharding were measured")
    sizes = {"micro_batch": layout.micro_batch, "tensor": layout.tensor, "pipeline": layout.pipeline}
    if reason := transformer_refusal(law, model, devices=layout.devices, **sizes):
        return Planned(layout, memory, reason=reason)
    rates = rates_of(device)
    assert rates is not None
    run = Run(model, batch, layout)
    step = step_seconds(laws.step_fit, [run], rates)
    again = RECOMPUTED if layout.recompute else 1.0
    layers, bubble = float(step.layers[0]) * again, float(step.bubble[0]) * again
    gradients, update = float(step.gradients[0]), float(step.update[0])
    parts = Parts(layers, update, 0.0, gradients, bubble)
    was_measured = run.shape in laws.step_shapes.weights and not (layout.recompute or layout.sharding)
    factor = law.factor95 if was_measured else laws.step_elsewhere_factor95
    return Planned(layout, memory, around(layers + bubble + gradients + update, factor), parts, law=law.source)


def most_devices(device: Device, laws: Laws) -> float:
    """The largest count of a device in any measurement of transformers."""
    counts = [law.bounds["devices"][1] for key, law in laws.rates.items() if key == device.key]
    if device.key == laws.step_device:
        counts.append(laws.steps.bounds["devices"][1])
    return max(counts, default=1)


def beyond(device: Device, laws: Laws) -> str:
    """Why no more of a device can be predicted."""
    most = most_devices(device, laws)
    if most > 1:
        return f"no measurement beyond {most:g} x {device.key}"
    return f"no measurement of more than one {device.key}; several were measured of {', '.join(laws.rates)}"


def rates_of(device: Device) -> Rates | None:
    """What the law of steps needs of a device; None where the catalogue lacks one of the rates."""
    flops, memory, link = device.dense_flops("bf16"), device.memory_bytes_per_second, device.link_bytes_per_second
    return None if flops is None or memory is None or link is None else Rates(flops, memory, link)


def _nothing_left(
    model: Transformer, device: Device, devices: int, found: Sequence[Planned], refused: Counter[str]
) -> UsageError:
    fitting = [one for one in found if one.memory.fits is not False]
    if fitting:
        reasons = "; ".join(reason for reason, _ in refused.most_common(3))
        return UsageError(f"{len(fitting)} layouts of {devices} x {device.key} fit, and none was measured: {reasons}")
    least = min(found, key=lambda one: one.memory.held_bytes)
    capacity = least.memory.capacity_bytes or 0.0
    return CannotRun(
        f"{model.name} ({model.parameters / 1e9:.3g} billion weights) fits in no layout of {devices} x {device.key}: "
        f"the leanest ({least.layout}) holds {least.memory.held_bytes / 1e9:.3g} GB a device, and a device has "
        f"{capacity / 1e9:.3g} GB; give about {_enough(least.memory, devices)} devices, or ones with more memory"
    )


def _enough(memory: Memory, devices: int) -> int:
    """Devices on which the shared parts would be small enough, to the next power of two; activations stay."""
    room = 0.9 * (memory.capacity_bytes or 0.0) - memory.activation_bytes
    shared = (memory.held_bytes - memory.activation_bytes) * devices
    return devices * 2 if room <= 0 else int(2 ** np.ceil(np.log2(max(shared / room, devices + 1))))


def _counts_near(model: Transformer, batch: int, devices: int) -> list[int]:
    near = sorted(range(1, 2 * devices + 1), key=lambda count: (abs(count - devices), count))
    fitting = (count for count in near if count != devices and next(layouts_of(model, batch, count), None))
    return sorted(count for count, _ in zip(fitting, range(4), strict=False))


def _shardings(data: int, pipeline: int) -> tuple[int, ...]:
    if data == 1:
        return (0,)
    return (0, 1, 2, 3) if pipeline == 1 else (0, 1)


def _gigabytes(one: Planned) -> str:
    return f"{one.memory.held_bytes / 1e9:.3g} GB"


def _value(one: Planned) -> float:
    assert one.seconds is not None
    return one.seconds.value
