"""A prediction for people and programs: lines in a table, layouts with why they lose, what would bind a large run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from vivace.core.measurement import Interval
from vivace.core.prediction.answer import LABEL, Layouts, Line, Prediction, Scale, ToTarget
from vivace.core.prediction.layout import Memory
from vivace.core.prediction.work import Purpose
from vivace.devices.catalog import Device
from vivace.devices.prediction.memory import SHARDINGS
from vivace.report.layout import line, plain_table
from vivace.report.wording import show_bytes, show_milliseconds

SCHEMA = 1
MAX_LINES, MAX_REASONS, MAX_NOTES, MAX_SCALES, MAX_TARGETS = 16, 3, 3, 2, 4
FEW = 8
"""Lines of which energy, and what fits when shared out, is told unasked."""
WORDS = {"arithmetic": "compute", "communication": "exchange"}
"""Short ones for what bounds a line, so that its label and its interval fit beside them."""


def prediction_document(prediction: Prediction) -> str:
    """The prediction as one JSON document whose keys are the fields of the objects."""
    return json.dumps({"schema_version": SCHEMA, **_plain(prediction)}, indent=2, allow_nan=False)


def prediction_block(prediction: Prediction) -> RenderableType:
    """Under 40 lines, but for layouts, which take some for each device and count: the counted work, one row for each
    device and count, reasons, layouts or else what would bind a large run, notes."""
    parts = [part for found in prediction.layouts for part in _layouts(found)]
    parts = parts or [*_scales(prediction.scale)]
    is_few = len(prediction.lines) <= FEW and not parts
    bills = any(one.cost or one.target_seconds or (is_few and one.joules) for one in prediction.lines)
    shown = prediction.lines[: MAX_LINES // (1 + bool(parts) + bills)]
    return Group(
        line(_work(prediction)),
        Text(""),
        _table(shown, prediction.work.purpose),
        *([_bills(shown)] if bills else []),
        *_more(len(prediction.lines) - len(shown)),
        *_targets(prediction.targets),
        *_reasons(prediction.lines),
        *parts,
        *(line(f"note: {note}") for note in prediction.notes[:MAX_NOTES]),
    )


def device_table(devices: Sequence[Device]) -> RenderableType:
    """The catalogue: dense rates, memory and power; what no source gives is a dash. Names are in the document."""
    table = plain_table("device", "kind", "f32", "bf16", "int8", "GB", "GB/s", "W")
    for one in devices:
        names = ("dense_f32_tflops", "dense_bf16_tflops", "dense_int8_tops", "memory_gigabytes")
        values = [one.value(name) for name in (*names, "memory_gigabytes_per_second", "power_watts")]
        table.add_row(one.key, one.kind, *(_number(value) for value in values))
    return table


def devices_document(devices: Sequence[Device]) -> str:
    """The catalogue as one JSON document: every number with its source and the day on which that was read."""
    entries = [
        {**_plain(one), "numbers": {name: _plain(number) for name, number in one.numbers.items()}} for one in devices
    ]
    return json.dumps({"schema_version": SCHEMA, "devices": entries}, indent=2, allow_nan=False)


def _work(prediction: Prediction) -> str:
    work = prediction.work
    step = "a call" if work.purpose is Purpose.INFERENCE else "an update"
    return (
        f"{work.name}: {step} of {work.batch} samples is {work.flops / 1e9:.3g} GFLOP in {work.operators} operators, "
        f"{work.parameters / 1e6:.3g} million weights. Everything below is {LABEL}."
    )


def _table(lines: Sequence[Line], purpose: Purpose) -> RenderableType:
    """One row a line; intervals of what follows from the seconds are in the document."""
    step = "ms a call" if purpose is Purpose.INFERENCE else "ms an update"
    table = plain_table("device", "n", step, "samples/s", "bound by", "memory", giving="bound by")
    for one in lines:
        told = _milliseconds(one.seconds) if one.seconds is None else f"{one.label} {_milliseconds(one.seconds)}"
        row = (told, _rate(one.samples_per_second), WORDS.get(one.bound, one.bound or "-"), _memory(one.memory))
        table.add_row(one.device, str(one.count), *row)
    return table


def _bills(lines: Sequence[Line]) -> RenderableType:
    """Energy and price of a step, and the time to the target."""
    table = plain_table("device", "n", "joules a step", "price of a step", "hours to the target")
    for one in lines:
        table.add_row(one.device, str(one.count), _value(one.joules), _value(one.cost), _hours(one.target_seconds))
    return table


def _reasons(lines: Sequence[Line]) -> Iterator[Text]:
    """Why lines were refused, what fits only when shared out, and what the others rest on, each once."""
    refusals = dict.fromkeys((one.device, one.refusal) for one in lines if one.refusal)
    for device, reason in list(refusals)[:MAX_REASONS]:
        same = [one for one in lines if (one.device, one.refusal) == (device, reason)]
        counts, floor = ", ".join(str(one.count) for one in same), same[0].floor_seconds
        least = f" (floor: {show_milliseconds(floor)} ms)" if floor else ""
        yield line(f"refused: {counts} x {device}: {reason}{least}")
    if (more := len(refusals) - MAX_REASONS) > 0:
        yield line(f"refused for other reasons: {more} more; --json has each line's own")
    shared = dict.fromkeys((one.device, one.memory.sharding) for one in lines[:FEW] if _is_shared(one) and one.memory)
    for device, sharding in list(shared)[: MAX_REASONS if len(lines) <= FEW else 0]:
        same = [one for one in lines if one.device == device and _is_shared(one)]
        counts = ", ".join(str(one.count) for one in same if one.memory and one.memory.sharding == sharding)
        yield line(f"fits: {counts} x {device}: with {sharding} shared out among the devices")
    bases = dict.fromkeys((one.device, one.basis) for one in lines if one.basis)
    for device, basis in list(bases)[:MAX_REASONS]:
        yield line(f"from: {device}: {basis}")


def _is_shared(one: Line) -> bool:
    """Whether a line fits because its devices share out what is learned."""
    return one.memory is not None and one.memory.fits is True and one.memory.sharding != SHARDINGS[0]


def _layouts(found: Layouts) -> Iterator[RenderableType]:
    asked = f"layouts of {found.batch} samples on {found.count} x {found.device}"
    if found.refusal:
        yield line(f"{asked}: none; {found.refusal}")
        return
    yield line(f"{asked}, {found.considered} considered ({LABEL}):")
    for place, one in enumerate(found.best, start=1):
        told = f"; {one.reason}" if one.reason else ""
        yield line(f"  {place}. {one.layout}: {_milliseconds(one.seconds)} ms, {_memory(one.memory)}{told}")
    for reason, count in found.refused[:MAX_REASONS]:
        yield line(f"  out: {count} layouts: {reason}")


def _scales(found: Sequence[Scale]) -> Iterator[RenderableType]:
    """What would bind the largest count of each device."""
    largest = {one.device: one for one in sorted(found, key=lambda one: one.count)}
    for one in list(largest.values())[:MAX_SCALES]:
        yield from _scale(one)
    if (more := len(found) - min(len(largest), MAX_SCALES)) > 0:
        yield line(f"what would bind {more} more; --json has it")


def _targets(found: Sequence[ToTarget]) -> Iterator[Text]:
    """The time to the target by the batch, for each device and count that has it for more than one."""
    groups: dict[tuple[str, int], list[ToTarget]] = {}
    for one in found:
        groups.setdefault((one.device, one.count), []).append(one)
    several = [(key, group) for key, group in groups.items() if len(group) > 1]
    for (device, count), group in several[:MAX_TARGETS]:
        told = "; ".join(f"batch {one.batch}: {_hours(one.seconds)}" for one in group)
        soonest = min(group, key=lambda one: one.seconds.value).batch
        yield line(f"hours to the target on {count} x {device} ({LABEL}): {told}; soonest with {soonest}")
    if (more := len(several) - MAX_TARGETS) > 0:
        yield line(f"the target on {more} more; --json has it")


def _scale(found: Scale) -> Iterator[RenderableType]:
    yield line(f"what would bind {found.count} x {found.device}: {found.binding} ({LABEL})")
    yield line(f"  a device computes for {_milliseconds(found.computing_seconds)} ms in a step: {found.basis}")
    for limit in found.limits:
        lost = "unknown" if limit.lost is None else _percent(limit.lost)
        yield line(f"  {limit.name}: {lost} of the time lost; {limit.assumption}")


def _more(count: int) -> Iterator[Text]:
    if count > 0:
        yield line(f"and {count} more; --json has them all")


def _memory(memory: Memory | None) -> str:
    if memory is None:
        return "-"
    if memory.fits is False:
        return "NO FIT"  # how much it holds is in the reason
    return f"{show_bytes(round(memory.held_bytes))}{'' if memory.fits else ' ?'}"


def _milliseconds(seconds: Interval | None) -> str:
    if seconds is None:
        return "refused"
    return f"{show_milliseconds(seconds.value)} [{show_milliseconds(seconds.low)}, {show_milliseconds(seconds.high)}]"


def _value(interval: Interval | None) -> str:
    return "-" if interval is None else f"{interval.value:.3g}"


def _rate(interval: Interval | None) -> str:
    """Three digits, in full where they are of a number below a million."""
    if interval is None:
        return "-"
    value = interval.value
    return f"{float(f'{value:.3g}'):.0f}" if 100 <= value < 1e6 else f"{value:.3g}"


def _hours(seconds: Interval | None) -> str:
    if seconds is None:
        return "-"
    value, low, high = (bound / 3600 for bound in (seconds.value, seconds.low, seconds.high))
    return f"{value:.3g} [{low:.3g}, {high:.3g}]"


def _percent(share: Interval) -> str:
    return f"{share.value:.1%} [{share.low:.1%}, {share.high:.1%}]"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _plain(value: Any) -> Any:
    """Dataclasses as dictionaries of their fields, enumerations as their values, what a property adds left out, but for
    `held_bytes` and `fits`, which are what a reader of memory looks for."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        plain = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {**plain, "held_bytes": value.held_bytes, "fits": value.fits} if isinstance(value, Memory) else plain
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
