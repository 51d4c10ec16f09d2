"""Lines of a prediction for the training of a described transformer on slices of TPUs."""

from __future__ import annotations

import dataclasses
import math

from vivace.core.prediction.answer import Line
from vivace.core.prediction.layout import Layout, Memory, Parts
from vivace.core.prediction.work import Transformer
from vivace.devices.catalog import Device
from vivace.devices.prediction.fitting import around
from vivace.devices.prediction.lines import refused, undivided
from vivace.devices.prediction.measured import Pods
from vivace.devices.prediction.memory import transformer_memory
from vivace.devices.prediction.pod_rate import Pod, share_of
from vivace.devices.prediction.training_rate import step_flops


def pod_line(model: Transformer, batch: int, device: Device, blank: Line, pods: Pods) -> Line:
    """The line of an update on so many chips, fully sharded with layers computed again; refused, with the reason, where
    nothing like it was measured. Rate, energy and price are the caller's."""
    count = blank.count
    peak, chips = device.dense_flops("bf16"), pods.slice_of(device)
    if peak is None or chips is None:
        lacks = "a dense rate in bf16" if peak is None else "how many chips are linked to one slice"
        return refused(blank, f"the catalogue does not know {lacks} of {device.key}")
    low, high = pods.counts_of(device)
    if not low <= count <= high:
        return refused(blank, f"no measurement of {count} x {device.key}; measured are {low:g} to {high:g} chips")
    if batch % count:
        return refused(blank, undivided(batch, count), cannot_run=True)
    if reason := pods.law.refusal(billion_weights=model.parameters / 1e9, sequence=model.sequence):
        return refused(blank, reason)
    memory = _memory(model, batch // count, device, count, pods)
    line = dataclasses.replace(blank, memory=memory)
    if memory.fits is False:
        told = f"does not fit: fully sharded, a chip holds {memory.held_bytes / 1e9:.3g} GB"
        return refused(line, told, cannot_run=True)
    share = share_of(pods.shares, Pod(device.key, model.parameters, math.ceil(count / chips)))
    seconds = batch * step_flops(model) / (share * peak * count)
    known = device.key in pods.shares.own
    factor = pods.law.factor95 if known else pods.elsewhere_factor95
    told = pods.law.source if known else f"{pods.law.source}; none of them {device.key}: interval of another generation"
    return dataclasses.replace(line, seconds=around(seconds, factor), parts=Parts(seconds), basis=told)


def _memory(model: Transformer, each: int, device: Device, count: int, pods: Pods) -> Memory:
    """What a chip holds with the most samples at a time that were measured, divide its share of the batch, and fit."""
    low, high = (int(bound) for bound in pods.law.bounds["samples_a_chip"])
    sizes = [size for size in range(min(each, high), low - 1, -1) if each % size == 0]
    layouts = [Layout(data=count, sharding=3, micro_batch=size, recompute=True) for size in sizes]
    found = [transformer_memory(model, layout, each // layout.micro_batch, device.memory_bytes) for layout in layouts]
    return next((memory for memory in found if memory.fits is not False), found[-1])
