"""Lines of a prediction for a transformer that is described: by the laws of one card, of a node, or of many nodes."""

from __future__ import annotations

import dataclasses
import functools
import math

from vivace.core.errors import UsageError
from vivace.core.prediction.answer import Line
from vivace.core.prediction.layout import Layout, Memory
from vivace.core.prediction.work import Operator, Purpose, Transformer
from vivace.devices.catalog import Device
from vivace.devices.prediction.layouts import MICRO_BATCHES, CannotRun, plan
from vivace.devices.prediction.lines import Asked, Step, finished, line_of, refused
from vivace.devices.prediction.measured import Laws
from vivace.devices.prediction.memory import MIXED_ADAM, layer_activation_bytes, transformer_memory
from vivace.devices.prediction.operators import floor_seconds, peaks_of
from vivace.devices.prediction.pod_lines import pod_line
from vivace.devices.prediction.transformer_operators import forward_operators, step_operators

TOKEN_BYTES = 4
"""Of one token in a data set."""


@dataclasses.dataclass(frozen=True)
class TransformerJob:
    """A training of a described transformer: `batch` samples an update, in mixed precision with Adam."""

    model: Transformer
    batch: int


def transformer_step(job: TransformerJob, layout: Layout | None = None) -> Step:
    """The update as a counted step; with a layout, in its micro-batches."""
    model = job.model
    micro_batch, recompute = (layout.micro_batch, layout.recompute) if layout else (1, False)

    @functools.cache
    def operators(batch: int) -> tuple[Operator, ...]:
        return tuple(step_operators(model, batch, micro_batch, recompute))

    weights, gradients, optimizer = (float(share * model.parameters) for share in MIXED_ADAM)
    kept = model.layers * layer_activation_bytes(model, 1)
    return Step(
        Purpose.TRAINING, job.batch, model.parameters, weights, gradients, optimizer, kept, operators, narrow=True,
        transformer=model, sample_bytes=float(TOKEN_BYTES * model.sequence),
    )  # fmt: skip


def transformer_line(job: TransformerJob, device: Device, count: int, asked: Asked, laws: Laws) -> Line:
    """The line of an update on `count` of a device: one device by its operators, several by the best layout that was
    measured to fit, TPUs in slices, or from what the user measured. Refused, with the reason, beyond every
    measurement."""
    if asked.measured is not None:
        at_once = Layout(micro_batch=max(1, job.batch // count))
        return line_of(transformer_step(job, at_once), device, count, asked, laws)
    if count == 1 and device.kind != "tpu":
        return _alone(job, device, asked, laws)
    floor, memory = _floor(job, device, count, asked), _shared_memory(job, device, count)
    blank = Line(device.key, count, asked.precision, floor_seconds=floor, memory=memory)
    if asked.precision != "bf16":
        return refused(blank, f"no measurement of several devices in {asked.precision}, only in bf16")
    if device.kind == "tpu":
        line = pod_line(job.model, job.batch, device, blank, laws.pods)
        return finished(line, transformer_step(job), device, asked)
    try:
        best = plan(job.model, job.batch, device, count, laws).ranked[0]
    except UsageError as reason:
        return refused(blank, str(reason), cannot_run=isinstance(reason, CannotRun))
    law = laws.rates[device.key] if best.layout.sharding == 3 and device.key in laws.rates else laws.steps
    basis = f"{best.layout}; {law.source}"
    line = dataclasses.replace(blank, seconds=best.seconds, parts=best.parts, memory=best.memory, basis=basis)
    return finished(line, transformer_step(job), device, asked)


def _alone(job: TransformerJob, device: Device, asked: Asked, laws: Laws) -> Line:
    """One device: the largest micro-batch that fits, computing layers again only where nothing fits otherwise."""
    chosen = _that_fits(job, device, Layout())
    layout = chosen or Layout(recompute=True)
    memory = transformer_memory(job.model, layout, 1, device.memory_bytes)
    blank = Line(device.key, 1, asked.precision, floor_seconds=_floor(job, device, 1, asked), memory=memory)
    if chosen is None:
        held, capacity = memory.held_bytes / 1e9, (device.memory_bytes or 0.0) / 1e9
        told = f"does not fit: it holds {held:.3g} GB at the least; one device has {capacity:.3g} GB"
        return refused(blank, told, cannot_run=True)
    found = laws.operator_law(device)
    one_pass = len(step_operators(job.model, layout.micro_batch, layout.micro_batch, layout.recompute))
    launched = one_pass * (job.batch // layout.micro_batch)
    if found and (reason := found[0].refusal(update_operators=launched)):
        return refused(blank, reason)
    at_once = layout if found else Layout(micro_batch=job.batch)
    return dataclasses.replace(line_of(transformer_step(job, at_once), device, 1, asked, laws), memory=memory)


def share_step(job: TransformerJob, device: Device, count: int) -> Step:
    """The update as each of `count` devices computes its samples when they share weights, gradients and optimizer among
    all: in the largest micro-batch that fits, or one sample at a time where none does."""
    each = dataclasses.replace(job, batch=math.ceil(job.batch / count))
    shared = Layout(data=count, sharding=3)
    return transformer_step(job, _that_fits(each, device, shared) or dataclasses.replace(shared, recompute=True))


def _that_fits(job: TransformerJob, device: Device, layout: Layout) -> Layout | None:
    """The layout with the largest micro-batch that fits and divides the batch, computing layers again only where
    nothing fits otherwise; None where nothing does."""
    for recompute in (False, True):
        for size in reversed(MICRO_BATCHES):
            one = dataclasses.replace(layout, micro_batch=size, recompute=recompute)
            memory = transformer_memory(job.model, one, 1, device.memory_bytes)
            if job.batch % size == 0 and memory.fits is not False:
                return one
    return None


def _shared_memory(job: TransformerJob, device: Device, count: int) -> Memory | None:
    """What each of `count` devices holds when they share as little as makes it fit, or all; None where the batch does
    not divide among them."""
    if job.batch % count:
        return None
    each = dataclasses.replace(job, batch=job.batch // count)
    layouts = [Layout(data=count, sharding=stage) for stage in range(4)]
    found = next((one for one in (_that_fits(each, device, layout) for layout in layouts) if one), None)
    leanest = found or dataclasses.replace(layouts[-1], recompute=True)
    return transformer_memory(job.model, leanest, 1, device.memory_bytes)


def _floor(job: TransformerJob, device: Device, count: int, asked: Asked) -> float | None:
    peaks = peaks_of(device, asked.precision)
    if peaks is None:
        return None
    forward = forward_operators(job.model, 1)
    each = floor_seconds(forward, peaks, 0.0)
    return 3 * each * job.batch / count
