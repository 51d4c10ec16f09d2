"""One line of a prediction: what a counted step takes on so many of one device, or the boundary that it stops at."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

from vivace.core.measurement import Interval
from vivace.core.prediction.answer import Line
from vivace.core.prediction.layout import Memory, divisors
from vivace.core.prediction.work import Operator, Purpose, Transformer
from vivace.devices.catalog import PRECISIONS, Device
from vivace.devices.prediction.binding import exposed_at_best, summing_seconds
from vivace.devices.prediction.fitting import around
from vivace.devices.prediction.measured import Law, Laws
from vivace.devices.prediction.memory import states
from vivace.devices.prediction.operators import floor_seconds, is_recurrent, parts_of, peaks_of, seconds_of
from vivace.devices.prediction.sharded_scaling import Shards, exposed_seconds, samples_per_second

OPERATORS_OF = {Purpose.INFERENCE: "call_operators", Purpose.TRAINING: "update_operators"}
"""What the bounds of a law call the operators of a step: calls were measured to fewer of them than updates."""
NARROW_BYTES = {"bf16": 0.5, "f16": 0.5, "fp8": 0.25, "int8": 0.25}
"""Of what float32 takes."""


@dataclasses.dataclass(frozen=True)
class Step:
    """A counted step of a job. `operators` gives those of so many samples on one device. Bytes are as the job has them,
    `activation_bytes` for one sample, and `sample_bytes` what a sample is read as; `narrow` says that weights are of
    16 bits already. `unread_bytes` are of weights that a call looks rows up in, and of which it reads those alone."""

    purpose: Purpose
    batch: int
    parameters: int
    weight_bytes: float
    gradient_bytes: float
    optimizer_bytes: float
    activation_bytes: float
    operators: Callable[[int], Sequence[Operator]]
    narrow: bool = False
    transformer: Transformer | None = None
    sample_bytes: float = 0.0
    unread_bytes: float = 0.0

    @property
    def read_bytes(self) -> float:
        """Bytes of weights that a step has to read, as the job has them."""
        return self.weight_bytes - self.unread_bytes


@dataclasses.dataclass(frozen=True)
class Seen:
    """What the user measured: samples a second of `count` devices together, with `batch` samples an update."""

    count: int
    samples_per_second: float
    batch: int


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is asked of one line: the precision of products, a price of a device for an hour, and what was measured on
    another count of this device."""

    precision: str
    price: float | None = None
    measured: Seen | None = None


def line_of(step: Step, device: Device, count: int, asked: Asked, laws: Laws) -> Line:
    """The line of a step on `count` of a device.

    A call is answered by copies that know nothing of each other. An update's batch is divided among the devices. It is
    refused, with the reason, where the catalogue lacks a peak, the batch does not divide, or nothing like it was
    measured.
    """
    blank = Line(device.key, count, asked.precision)
    each = step.batch if step.purpose is Purpose.INFERENCE else step.batch / count
    if each != int(each) or each < 1:
        return refused(blank, undivided(step.batch, count), cannot_run=True)
    memory = _memory(step, device, count, int(each), asked)
    blank = dataclasses.replace(blank, memory=memory)
    if memory.fits is False:
        held, there = memory.held_bytes / 1e9, (memory.capacity_bytes or 0) / 1e9
        return refused(blank, f"it does not fit: {held:.3g} GB on each device, which has {there:.3g}", cannot_run=True)
    peaks = peaks_of(device, asked.precision)
    if peaks is None:
        return refused(blank, _missing(device, asked.precision))
    operators = _in_precision(step.operators(int(each)), asked.precision, step.narrow)
    weights = step.read_bytes * _bytes_share(asked.precision, step.narrow)
    floor = floor_seconds(operators, peaks, weights)
    line = dataclasses.replace(blank, floor_seconds=floor)
    if asked.measured is not None:
        return finished(_from_measured(line, step, count, int(each), device, asked.measured, laws), step, device, asked)
    found = _law_for(operators, step.purpose, device, laws)
    if isinstance(found, str):
        return refused(line, found)
    law, basis = found
    parts = parts_of(operators, peaks, law.parameters, is_update=step.purpose is Purpose.TRAINING)
    line = dataclasses.replace(line, parts=parts, seconds=around(seconds_of(parts), law.factor95), basis=basis)
    if step.purpose is Purpose.TRAINING and count > 1:
        line = _communicating(line, step, device, count, law, laws)
    return finished(line, step, device, asked)


def computing_of(step: Step, device: Device, samples: int, precision: str, laws: Laws) -> tuple[Interval, str] | None:
    """What one device computes for when it has so many samples, with its interval, and what that rests on: the line of
    one device, but for what it can hold. None where the catalogue or the measurements lack something."""
    peaks = peaks_of(device, precision)
    if peaks is None:
        return None
    operators = _in_precision(step.operators(samples), precision, step.narrow)
    found = _law_for(operators, step.purpose, device, laws)
    if isinstance(found, str):
        return None
    law, basis = found
    parts = parts_of(operators, peaks, law.parameters, is_update=step.purpose is Purpose.TRAINING)
    seconds = around(seconds_of(parts), law.factor95)
    floor = floor_seconds(operators, peaks, step.read_bytes * _bytes_share(precision, step.narrow))
    return dataclasses.replace(seconds, low=min(seconds.value, max(seconds.low, floor))), basis


def _law_for(operators: Sequence[Operator], purpose: Purpose, device: Device, laws: Laws) -> tuple[Law, str] | str:
    """The law of one device for these operators, its interval wider where they are more than were measured, and what it
    rests on; or why there is none."""
    found = laws.operator_law(device)
    if found is None:
        return f"nothing was measured on a {device.kind}; the peaks allow no less than the floor"
    law, basis = found
    if waiting := sorted({one.name for one in operators if is_recurrent(one.name)}):
        return f"no measurement of recurrent layers ({', '.join(waiting)}), whose steps wait for each other"
    sizes = {"gigaflops": sum(one.flops for one in operators) / 1e9, OPERATORS_OF[purpose]: len(operators)}
    if reason := law.refusal(**sizes):
        return reason
    if (wider := law.widening(**sizes)) > 1:
        law = dataclasses.replace(law, factor95=law.factor95 * wider)
        told = f": interval widened by {wider:.2f}" if round(wider, 2) > 1 else ""
        basis = f"{basis}; larger than any step that was measured{told}"
    return law, basis


def _communicating(line: Line, step: Step, device: Device, count: int, law: Law, laws: Laws) -> Line:
    """The line with what devices do not hide of exchanging gradients and weights."""
    assert line.parts is not None
    summing = summing_seconds(device, count, step.gradient_bytes)
    if _is_small(step, laws) and summing is not None and not _count_refusal(device, count, laws):
        return _summing(line, summing, law, laws)
    if reason := _scaling_refusal(step, device, count, laws):
        return refused(line, reason)
    exposed = exposed_seconds(laws.scaling.parameters, Shards(step.parameters, count, 1))
    parts = dataclasses.replace(line.parts, communication_seconds=exposed)
    factor = math.exp(math.hypot(math.log(law.factor95), math.log(laws.scaling.factor95)))
    basis = f"{line.basis}; devices together: {laws.scaling.source}"
    return dataclasses.replace(line, parts=parts, seconds=around(seconds_of(parts), factor), basis=basis)


def _summing(line: Line, summing: float, law: Law, laws: Laws) -> Line:
    """The line of a model with fewer weights than any that several devices were measured with: gradients are summed by
    alpha-beta, hidden as well as can be for the middle and the low end, and not at all for the high one."""
    assert line.parts is not None
    alone = seconds_of(line.parts)
    parts = dataclasses.replace(line.parts, communication_seconds=exposed_at_best(summing, alone))
    factor = math.exp(math.hypot(math.log(law.factor95), math.log(laws.scaling.factor95)))
    value = seconds_of(parts)
    seconds = Interval(value, value / factor, (alone + summing) * factor)
    basis = (
        f"{line.basis}; devices together: none were measured with so few weights; gradients by alpha-beta at the "
        "catalogue's rates, hidden behind the backward pass at best, not at all at worst"
    )
    return dataclasses.replace(line, parts=parts, seconds=seconds, basis=basis)


def _is_small(step: Step, laws: Laws) -> bool:
    return step.parameters / 1e9 < laws.scaling.bounds["billion_parameters"][0]


def _from_measured(line: Line, step: Step, count: int, each: int, device: Device, measured: Seen, laws: Laws) -> Line:
    """The line from what the user measured on another count, by the law of scaling alone."""
    known, rate = measured.count, measured.samples_per_second
    if reason := _scaling_refusal(step, device, count, laws) or _scaling_refusal(step, device, known, laws):
        return refused(line, reason)
    first = Shards(step.parameters, known, max(1, measured.batch // known))
    found = samples_per_second(laws.scaling.parameters, first, rate / known, Shards(step.parameters, count, each))
    seconds = around(step.batch / (found * count), laws.scaling.factor95)
    basis = f"your {rate:g} samples/s on {known}; {laws.scaling.source}"
    return dataclasses.replace(line, seconds=seconds, basis=basis, bound="")


def _count_refusal(device: Device, count: int, laws: Laws) -> str:
    bounds = laws.scaling_devices.get(device.key)
    if bounds is None:
        known = ", ".join(laws.scaling_devices)
        return f"no measurement of more than one {device.key}; several were measured of {known}"
    if count > bounds[1]:
        return f"no measurement beyond {bounds[1]:g} x {device.key}"
    return ""


def _scaling_refusal(step: Step, device: Device, count: int, laws: Laws) -> str:
    if count == 1 and device.key in laws.scaling_devices:
        return ""
    if reason := _count_refusal(device, count, laws):
        return reason
    low, high = laws.scaling.bounds["billion_parameters"]
    if not low <= step.parameters / 1e9 <= high:
        return f"several {device.key} were measured with {low:g} to {high:g} billion weights only"
    return ""


def finished(line: Line, step: Step, device: Device, asked: Asked) -> Line:
    """The line with what follows from its seconds: rate, energy, money, what bounds it. No end of the interval is below
    the floor; seconds that are, because of what the user measured, are refused."""
    if line.seconds is None:
        return line
    floor = line.floor_seconds or 0.0
    if line.seconds.value < floor:
        told = f"{1e3 * line.seconds.value:.3g} ms, from {line.basis}"
        return refused(line, f"{told}, would be less than the peaks in {line.precision} allow")
    seconds = dataclasses.replace(line.seconds, low=max(line.seconds.low, floor))
    samples = step.batch * (line.count if step.purpose is Purpose.INFERENCE else 1)
    rate = Interval(samples / seconds.value, samples / seconds.high, samples / seconds.low)
    power = device.value("power_watts")
    return dataclasses.replace(
        line,
        seconds=seconds,
        samples_per_second=rate,
        bound=line.parts.bound if line.parts else "",
        joules=None if power is None else _times(seconds, power * line.count),
        cost=None if asked.price is None else _times(seconds, asked.price * line.count / 3600),
    )


def _memory(step: Step, device: Device, count: int, each: int, asked: Asked) -> Memory:
    activations = step.activation_bytes * each * _bytes_share(asked.precision, step.narrow)
    if step.purpose is Purpose.INFERENCE:
        return states(step.weight_bytes * _bytes_share(asked.precision, step.narrow), 0, 0, activations, 1, 0,
                      device.memory_bytes)  # fmt: skip
    sizes = (step.weight_bytes, step.gradient_bytes, step.optimizer_bytes, activations)
    stages = [states(*sizes, count, stage, device.memory_bytes) for stage in range(4 if count > 1 else 1)]
    return next((memory for memory in stages if memory.fits is not False), stages[-1])


def _in_precision(operators: Sequence[Operator], precision: str, narrow: bool) -> list[Operator]:
    share = _bytes_share(precision, narrow)
    return [dataclasses.replace(one, moved_bytes=one.moved_bytes * share) for one in operators]


def _bytes_share(precision: str, narrow: bool) -> float:
    return 1.0 if narrow else NARROW_BYTES.get(precision, 1.0)


def _missing(device: Device, precision: str) -> str:
    """What the catalogue lacks of a device for a precision, and for what other precisions it has a rate."""
    if device.kind == "fpga":
        return f"what {device.key} takes follows from a design and not from peaks; make one: vivace synthesize --chip"
    unknown = "the catalogue does not know"
    if device.memory_bytes_per_second is None:
        return f"{unknown} the rate of the memory of {device.key}"
    known = [name for name in PRECISIONS if device.dense_flops(name) is not None]
    instead = f"; it does in {', '.join(known)}" if known else ""
    return f"{unknown} a dense rate in {precision} of {device.key}{instead}"


def undivided(batch: int, count: int) -> str:
    """That a batch does not divide among so many devices, with counts and batches that would."""
    counts = sorted(sorted(divisors(batch), key=lambda size: abs(size - count))[:3])
    batches = [size for size in (batch // count * count, (batch // count + 1) * count) if size]
    return (
        f"a batch of {batch} does not divide among {count} devices; counts near it: {', '.join(map(str, counts))}; or "
        f"give a batch of {' or '.join(map(str, batches))}"
    )


def refused(line: Line, reason: str, *, cannot_run: bool = False) -> Line:
    """The line without a time, and why."""
    return dataclasses.replace(
        line, seconds=None, samples_per_second=None, parts=None, refusal=reason, cannot_run=cannot_run
    )


def _times(interval: Interval, factor: float) -> Interval:
    return Interval(interval.value * factor, interval.low * factor, interval.high * factor)
