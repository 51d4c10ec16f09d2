"""Updates by several processes of this machine: one process's share is timed alone, the step of all is PREDICTED."""

from __future__ import annotations

import dataclasses
import math
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from vivace.api.together.exchanges import exchanges_here
from vivace.core.errors import UsageError
from vivace.core.measurement import Interval
from vivace.core.plan import Plan
from vivace.core.prediction.answer import LayoutLine, Layouts, Line
from vivace.core.prediction.layout import Layout, Memory, Parts
from vivace.core.training.job import Training
from vivace.devices.machine import detect
from vivace.devices.prediction.fitting import around, once_more
from vivace.devices.prediction.lines import Step, refused
from vivace.devices.prediction.measured import Beyond, Law, Laws
from vivace.devices.prediction.memory import states
from vivace.devices.prediction.processes import Share, Spread, Wires, moved, seconds_of, wires_of
from vivace.distributed.sharding import blocks_of
from vivace.measure import clock
from vivace.measure.process import Limits, Worker
from vivace.training.service import Stepper, stepping

HERE = "here"
"""The name of this machine among devices: a count of it is a count of processes with one thread each."""
STARTS, LEAST_SECONDS, MOST_STEPS, WARM_STEPS = 3, 0.3, 40, 3
"""How often a process is started and timed, for how long at least, in how many steps at most."""
SHARDINGS = {0: Spread.DATA, 3: Spread.SHARD}
NOT_TIMED = "tensor and pipeline parallel: parts of layers, and stages, would have to be timed by themselves"


@dataclasses.dataclass(frozen=True)
class Here:
    """The lines and, for several processes, the layouts of a job on this machine."""

    lines: tuple[Line, ...]
    layouts: tuple[Layouts, ...]


@dataclasses.dataclass(frozen=True)
class _Timed:
    """What was timed: seconds of a process's share, by its samples, one number for each start; and bare exchanges."""

    shares: Mapping[int, Sequence[float]]
    wires: Wires | None


def predicted_here(job: Training, step: Step, counts: Sequence[int], laws: Laws) -> Here:
    """The counted update of a job by so many processes of this machine, its batch divided among them as DDP does.

    Times a step of one process with its share of the batch, in three starts, and for several processes bare exchanges
    between two: this takes some seconds. Lines of several processes are refused beyond what was measured of them.
    Raises UsageError for data that come in whole batches, which cannot be divided here.
    """
    if not job.has_samples:
        raise UsageError(
            f"data gives whole batches; for {HERE} allowed is a Dataset beside batch_size, so that a process's share "
            "of a batch can be timed"
        )
    lines = {count: _refused(Line(HERE, count, "f32", memory=_memory(step, count, 0)), step, laws) for count in counts}
    asked = [count for count, line in lines.items() if not line.refusal]
    found = _timed(job, step, asked)
    wanted = {count: _line(lines[count], job, step, found, laws) for count in asked}
    layouts = tuple(_layouts(job, step, count, found, laws) for count in asked if count > 1)
    return Here(tuple(wanted.get(count, lines[count]) for count in counts), layouts)


def _refused(line: Line, step: Step, laws: Laws) -> Line:
    """The line, refused where nothing need be timed to know it."""
    cores = detect().cores_allowed
    if step.batch < line.count:
        return refused(line, f"a batch of {step.batch} leaves some of {line.count} processes without a sample")
    if line.count > 1 and (reason := _as_measured(laws).refusal(processes=line.count)):
        return refused(line, reason)
    if line.count > cores:
        return refused(line, f"no measurement of {line.count} processes on {cores} core, each had one of its own")
    if line.memory is not None and line.memory.fits is False:
        held, there = line.memory.held_bytes / 1e9, (line.memory.capacity_bytes or 0.0) / 1e9
        return refused(line, f"it does not fit: {held:.3g} GB in each process, whose part of memory is {there:.3g}")
    return line


def _timed(job: Training, step: Step, counts: Sequence[int]) -> _Timed:
    sizes = sorted({_rows(step, count) for count in counts})
    seconds: dict[int, list[float]] = {size: [] for size in sizes}
    with tempfile.TemporaryDirectory(prefix="vivace-") as name:
        for start in range(STARTS):
            for size in sizes:
                share = dataclasses.replace(job, batch_size=size)
                seconds[size].append(_seconds_of(share, Path(name) / f"{start}-{size}"))
    return _Timed(seconds, wires_of([exchanges_here()]) if any(count > 1 for count in counts) else None)


def _seconds_of(job: Training, folder: Path) -> float:
    """The median step of a process of its own, with one thread."""
    with Worker(folder, Limits(), {"OMP_NUM_THREADS": "1"}) as worker:
        worker.open("vivace.api.prediction.here:open_alone", {}, job)
        return float(worker.call("seconds"))


def open_alone(arguments: Mapping[str, Any], payload: Training) -> Alone:
    """The entry of a process that takes steps by itself."""
    torch.set_num_threads(1)
    return Alone(stepping(payload, Plan()))


class Alone:
    """Takes steps and tells what they took."""

    def __init__(self, step: Stepper) -> None:
        self._step = step

    def seconds(self) -> float:
        """The median of as many steps as the time allows, once some were taken."""
        with clock.quiet_collector():
            warm = clock.time_calls(self._step, range(WARM_STEPS))
            steps = max(WARM_STEPS, min(MOST_STEPS, math.ceil(LEAST_SECONDS / min(warm))))
            return statistics.median(clock.time_calls(self._step, range(steps)))


def _line(line: Line, job: Training, step: Step, found: _Timed, laws: Laws) -> Line:
    rows = _rows(step, line.count)
    starts = found.shares[rows]
    alone = statistics.median(starts)
    timed = f"one process with {rows} samples and one thread took {alone * 1e3:.3g} ms here"
    if line.count == 1:
        parts = Parts(arithmetic_seconds=alone)
        return _rated(
            line, step, once_more(starts), parts, f"{timed}, MEASURED in {STARTS} starts; the interval is theirs"
        )
    basis = f"copies (DDP); {timed}, MEASURED; exchanges between two as well; {laws.processes.source}"
    share = _share(job, step, line.count, alone, Spread.DATA)
    if reason := _beyond(share, laws):
        return refused(line, reason)
    wider = laws.processes.widening(**_sizes(share))
    told = f"; larger than any step that was measured: interval widened by {wider:.2f}" if wider > 1 else ""
    seconds, parts = _together(share, found, laws)
    return _rated(line, step, seconds, parts, f"{basis}{told}")


def _share(job: Training, step: Step, count: int, alone: float, spread: Spread) -> Share:
    """What one process does: copies sum all gradients, beside the losses and what was unused; shards gather each block
    twice and scatter it once."""
    model = job.model()
    tensors = sum(parameter.requires_grad for parameter in model.parameters())
    exchanges = 3 if spread is Spread.DATA else 3 * (len(blocks_of(model)) + 1)
    return Share(spread, count, alone, alone, exchanges, step.gradient_bytes, tensors)


def _rows(step: Step, count: int) -> int:
    """Samples of the process that has the most of a batch, for which the others wait."""
    return math.ceil(step.batch / count)


def _beyond(share: Share, laws: Laws) -> str:
    reason = _as_measured(laws).refusal(exchanges=share.exchanges)
    return reason or laws.processes.refusal(**_sizes(share))


def _as_measured(laws: Laws) -> Law:
    """The law for what it does not go beyond: how many processes, and how often they exchange something."""
    return dataclasses.replace(laws.processes, beyond=Beyond())


def _sizes(share: Share) -> dict[str, float]:
    """The sizes of a step in which the law goes on, by the names of its bounds."""
    return {
        "exchanged_bytes": share.exchanged_bytes, "tensors": share.tensors,
        "seconds_of_one_process": share.alone_seconds,
    }  # fmt: skip


def _together(share: Share, found: _Timed, laws: Laws) -> tuple[Interval, Parts]:
    assert found.wires is not None
    parameters = moved(laws.processes.parameters, laws.processes_latency_seconds, found.wires)
    seconds = float(seconds_of([share], found.wires, parameters)[0])
    computing = share.alone_seconds * math.exp(parameters[0])
    parts = Parts(arithmetic_seconds=computing, communication_seconds=max(0.0, seconds - computing))
    return around(seconds, laws.processes.factor95 * laws.processes.widening(**_sizes(share))), parts


def _layouts(job: Training, step: Step, count: int, found: _Timed, laws: Laws) -> Layouts:
    """Copies and shards, the faster first."""
    rows = _rows(step, count)
    alone = statistics.median(found.shares[rows])
    best, out = [], [(NOT_TIMED, 2)]
    for sharding, spread in SHARDINGS.items():
        share = _share(job, step, count, alone, spread)
        if reason := _beyond(share, laws):
            out.append((reason, 1))
            continue
        seconds, parts = _together(share, found, laws)
        layout = Layout(data=count, sharding=sharding, micro_batch=rows)
        best.append(LayoutLine(layout, seconds, _memory(step, count, sharding), parts))
    best.sort(key=lambda one: one.seconds.value)
    told = [
        one if place == 0 else dataclasses.replace(one, reason=_lost(one, best[0])) for place, one in enumerate(best)
    ]
    refusal = "" if best else "; ".join(reason for reason, _ in out)
    considered = len(SHARDINGS) + 2
    return Layouts(HERE, count, step.batch, tuple(told), tuple(out), considered, laws.processes.source, refusal)


def _lost(other: LayoutLine, first: LayoutLine) -> str:
    more = (other.parts.communication_seconds - first.parts.communication_seconds) * 1e3
    apart = "" if other.seconds.low > first.seconds.high else ", and the intervals overlap"
    return f"{other.seconds.value / first.seconds.value:.2f} times the first: exchanges take {more:.3g} ms more{apart}"


def _rated(line: Line, step: Step, seconds: Interval, parts: Parts, basis: str) -> Line:
    rate = Interval(step.batch / seconds.value, step.batch / seconds.high, step.batch / seconds.low)
    return dataclasses.replace(
        line, seconds=seconds, parts=parts, samples_per_second=rate, bound=parts.bound, basis=basis
    )


def _memory(step: Step, count: int, sharding: int) -> Memory:
    """What each process holds, of which all have the same part of the machine's memory."""
    activations = step.activation_bytes * _rows(step, count)
    sizes = (step.weight_bytes, step.gradient_bytes, step.optimizer_bytes, activations)
    return states(*sizes, count, sharding, detect().memory_bytes / count)
