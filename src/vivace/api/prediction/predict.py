"""`vivace.predict`: what the same work would take on hardware that is not here; every number PREDICTED, none timed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from vivace.api.prediction.counting import counted_training, counted_workload
from vivace.api.prediction.here import HERE, Here, predicted_here
from vivace.api.prediction.targets import target_of, to_targets
from vivace.api.silicon.foresee import is_for_arrays, predict_arrays
from vivace.core.errors import UsageError
from vivace.core.measurement import Interval
from vivace.core.prediction.answer import LayoutLine, Layouts, Line, Prediction, Scale
from vivace.core.prediction.work import Counted, Purpose, Transformer
from vivace.core.training.job import Training
from vivace.core.workload import Workload
from vivace.devices.catalog import PRECISIONS, Device, device
from vivace.devices.prediction.binding import (
    REACHED_SOURCE,
    RESTART_SECONDS,
    WRITE_SECONDS,
    computing_seconds,
    scale_of,
)
from vivace.devices.prediction.convergence import Convergence
from vivace.devices.prediction.layouts import Plan, plan
from vivace.devices.prediction.lines import Asked, Seen, Step, computing_of, line_of, refused
from vivace.devices.prediction.measured import Laws, laws
from vivace.devices.prediction.transformer_lines import TransformerJob, share_step, transformer_line, transformer_step
from vivace.hardware.array.memory import USUAL, Board
from vivace.hardware.array.result import ArrayPrediction

BEST = 3
LARGE = 1000
"""Devices from which on what binds is told: every synchronous run of that size has met failures and slow devices."""


def predict(
    work: Workload | Training | Transformer,
    on: str | Sequence[str] = (),
    count: int | Sequence[int] = 1,
    *,
    precision: str | None = None,
    batch: int | None = None,
    prices: Mapping[str, float] | None = None,
    measured: Mapping[str, tuple[int, float] | tuple[int, float, int]] | None = None,
    runs: Sequence[tuple[float, float]] = (),
    layouts: bool = False,
    input_bytes_per_second: float | None = None,
    checkpoint_seconds: float = WRITE_SECONDS,
    restart_seconds: float = RESTART_SECONDS,
    board: Board = USUAL,
    bandwidths: Sequence[float] = (),
    sweep: bool = False,
) -> Prediction | ArrayPrediction:
    """What a step of a job takes on devices of the catalogue, for each device and each count of it.

    A Workload's step is one call of its example, and `count` copies answer calls side by side. A Training's is an
    update, whose batch is divided among the devices: `batch` samples, the job's own unless it is given. A Transformer
    needs `batch`. `precision` is that of products (f32, bf16, ...): bf16 for a Transformer, else what the weights have.
    `prices` are of a device for an hour, in any currency, by device. `measured` gives samples a second that were seen
    on another count, by device, as (count, rate) or (count, rate, batch): the line then rests on those. `runs` are
    (batch, samples that reached the target): they give the time to the target with this batch, and in `targets` with
    each that was run.
    `layouts` ranks the ways to spread a Transformer. `input_bytes_per_second` is what your storage gives: of a thousand
    devices and more it says whether samples come fast enough. `checkpoint_seconds` to write a checkpoint of as many and
    `restart_seconds` to start them again give how often to write one, and what time is left.

    Systolic arrays are written asic:ROWSxCOLUMNS[:os|ws|is][:2of4]: the answer is then an ArrayPrediction for one call
    of a Workload, layer by layer, on a chip with the clock, the memory and the buffer of `board`, at each of
    `bandwidths` (bytes a second; the first is then the board's). `sweep` compares them with squares of 8 to 128 in
    every dataflow, dense and 2:4, at a quarter, once and four times the bandwidth unless others are given. Settings of
    the other kind are refused.

    `here` is this machine: `count` processes with one thread each, of a Training whose data are a Dataset. What one of
    them computes is timed, by itself; what all take together is predicted. `layouts` then ranks copies and shards.

    A line is refused, with its reason, beyond every measurement: a kind of device, a count, a size. Raises UsageError
    for a device that is not known, with the nearest names, and for a request that cannot be used.

    >>> gpt = Transformer(layers=24, width=2048, heads=16, sequence=2048)
    >>> found = predict(gpt, on="h100-sxm", count=[8, 64], batch=512)
    >>> [line.count for line in found.lines]
    [8, 64]
    """
    names = [on] if isinstance(on, str) else list(on)
    if is_for_arrays(names, sweep):
        given = {
            "count": count not in (1, [1]), "precision": precision, "batch": batch, "prices": prices,
            "measured": measured, "runs": runs, "layouts": layouts, "input_bytes_per_second": input_bytes_per_second,
            "checkpoint_seconds": checkpoint_seconds != WRITE_SECONDS,
            "restart_seconds": restart_seconds != RESTART_SECONDS,
        }  # fmt: skip
        _refuse("arrays", given)
        return predict_arrays(work, names, board, bandwidths, sweep)
    _refuse("devices of the catalogue", {"board": board != USUAL, "bandwidths": bandwidths})
    is_here = HERE in names
    keys, counts = _keys([name for name in names if name != HERE], is_here), _counts(count)
    known = laws()
    job = _job(work, batch)
    step = transformer_step(job) if isinstance(job, TransformerJob) else job
    rate = input_bytes_per_second
    if rate is not None and not 0 < rate < float("inf"):
        raise UsageError(f"input_bytes_per_second (--input-rate) is {rate}; allowed is a finite number above 0")
    for name, seconds in (("checkpoint_seconds", checkpoint_seconds), ("restart_seconds", restart_seconds)):
        if not 0 < seconds < float("inf"):
            raise UsageError(f"{name} (--{name.replace('_', '-')}) is {seconds}; allowed is a finite number above 0")
    pauses = (checkpoint_seconds, restart_seconds)
    wanted = precision or ("bf16" if step.narrow else "f32")
    _check(wanted, keys, prices or {}, measured or {})
    target = target_of(runs, step.purpose)
    here = _here(work, job, counts, precision, known) if is_here else Here((), ())
    asked = {key: Asked(wanted, (prices or {}).get(key), _seen((measured or {}).get(key), step.batch)) for key in keys}
    lines = [*here.lines, *(_line(job, device(key), each, asked[key], known) for key in keys for each in counts)]
    lines = [_to_target(line, target, step.batch) for line in lines]

    def with_batch(line: Line, size: int) -> Line:
        if line.device == HERE:  # its share would have to be timed again
            return refused(line, f"{HERE} was timed with {step.batch} samples")
        try:
            return _line(
                dataclasses.replace(job, batch=size), device(line.device), line.count, asked[line.device], known
            )
        except UsageError as reason:
            return refused(line, str(reason))

    return Prediction(
        _counted(_name(work), step),
        tuple(lines),
        (*here.layouts, *_all_layouts(job, keys, counts, known, here.layouts)) if layouts else (),
        tuple(
            _scale(job, step, line, known, rate, pauses)
            for line in lines
            if line.count >= LARGE and _can_scale(step, line)
        ),
        () if target is None else to_targets(lines, target, step.batch, with_batch),
        tuple(_notes(step, keys, counts, is_here)),
    )


def _here(work: object, step: Step | TransformerJob, counts: Sequence[int], precision: str | None, known: Laws) -> Here:
    if not isinstance(work, Training) or not isinstance(step, Step):
        raise UsageError(f"{HERE} predicts processes that train; give a vivace.Training, or time it: vivace measure")
    if precision not in (None, "f32"):
        raise UsageError(f"precision is {precision}; processes on {HERE} were measured in f32 only")
    return predicted_here(work, step, counts, known)


def _refuse(kind: str, given: Mapping[str, object]) -> None:
    named = [name for name, value in given.items() if value]
    if named:
        raise UsageError(f"{', '.join(named)} was given, which means nothing for {kind}; leave it out")


def _job(work: object, batch: int | None) -> Step | TransformerJob:
    if batch is not None and (isinstance(batch, bool) or not isinstance(batch, int) or batch < 1):
        raise UsageError(f"batch is {batch!r}; allowed is a whole number of 1 or more")
    if isinstance(work, Transformer):
        if batch is None:
            raise UsageError("batch is missing; give the samples of a step of this transformer, such as batch=512")
        return TransformerJob(work, batch)
    if isinstance(work, Training):
        return counted_training(work, batch)
    if isinstance(work, Workload):
        if batch is not None:
            raise UsageError("batch was given for a Workload; its example call is the batch")
        return counted_workload(work)
    raise UsageError(
        f"work is a {type(work).__name__}; allowed are a vivace.Workload, a vivace.Training and a vivace.Transformer"
    )


def _seen(given: tuple[int, float] | tuple[int, float, int] | None, batch: int) -> Seen | None:
    return None if given is None else Seen(given[0], given[1], given[2] if len(given) > 2 else batch)


def _line(job: Step | TransformerJob, one: Device, count: int, asked: Asked, known: Laws) -> Line:
    if isinstance(job, TransformerJob):
        return transformer_line(job, one, count, asked, known)
    return line_of(job, one, count, asked, known)


def _to_target(line: Line, target: Convergence | None, batch: int) -> Line:
    if target is None or line.samples_per_second is None:
        return line
    return dataclasses.replace(line, target_seconds=target.seconds(batch, line.samples_per_second))


def _all_layouts(
    job: Step | TransformerJob, keys: Sequence[str], counts: Sequence[int], known: Laws, others: Sequence[Layouts]
) -> tuple[Layouts, ...]:
    """The layouts on each device and count, or why there are none; raises the first reason where none has any, nor the
    `others` are there."""
    found, refusals = [], []
    for key in keys:
        for count in counts:
            try:
                found.append(_layouts(job, device(key), count, known))
            except UsageError as refusal:
                refusals.append(refusal)
                found.append(Layouts(key, count, job.batch, (), (), 0, "", str(refusal)))
    if refusals and len(refusals) == len(found) and not others:
        raise refusals[0]
    return tuple(found)


def _layouts(job: Step | TransformerJob, one: Device, count: int, known: Laws) -> Layouts:
    if not isinstance(job, TransformerJob):
        raise UsageError(
            "layouts was asked for a job in code; allowed is a vivace.Transformer, whose heads and layers are known"
        )
    found = plan(job.model, job.batch, one, count, known)
    return Layouts(one.key, count, job.batch, _best(found), found.refused, found.considered, _basis(found, known))


def _best(found: Plan) -> tuple[LayoutLine, ...]:
    told = []
    for place, one in enumerate(found.ranked[:BEST]):
        assert one.seconds is not None and one.parts is not None
        told.append(LayoutLine(one.layout, one.seconds, one.memory, one.parts, found.lost(place) if place else ""))
    return tuple(told)


def _basis(found: Plan, known: Laws) -> str:
    best = found.ranked[0].layout
    law = known.rates.get(found.device) if best.sharding == 3 else known.steps
    return (law or known.steps).source


def _can_scale(step: Step, line: Line) -> bool:
    return step.purpose is Purpose.TRAINING and line.floor_seconds is not None and step.batch >= line.count


def _scale(
    job: Step | TransformerJob, step: Step, line: Line, known: Laws, rate: float | None, pauses: tuple[float, float]
) -> Scale:
    one = device(line.device)
    seconds, basis = _computing(job, one, line, known)
    return scale_of(
        one, line.count, seconds, step.gradient_bytes, step.sample_bytes, step.batch, *pauses,
        input_bytes_per_second=rate, basis=basis,
    )  # fmt: skip


def _computing(job: Step | TransformerJob, one: Device, line: Line, known: Laws) -> tuple[Interval, str]:
    """What each device computes for in a step, and by which law: the line's own, that of one device with its share of
    the batch, or the floor at the shares of the peak that trainings reach."""
    assert line.floor_seconds is not None
    if line.seconds is not None:
        return line.seconds, f"the step as it is predicted above, communication included: {line.basis}"
    step = share_step(job, one, line.count) if isinstance(job, TransformerJob) else job
    found = computing_of(step, one, math.ceil(step.batch / line.count), line.precision, known)
    return found or (computing_seconds(line.floor_seconds), f"the floor, {REACHED_SOURCE}")


def _counted(name: str, step: Step) -> Counted:
    sums = _sums(step, step.batch) if step.transformer is None else _sums(step, 1)
    if step.transformer is not None:  # each sample is a pass of its own, so that two tell all
        passes = zip(sums, _sums(step, 2), strict=True)
        sums = [one + (step.batch - 1) * (two - one) for one, two in passes]
    flops, moved, operators = sums
    return Counted(name, step.purpose, step.batch, flops, moved, int(operators), step.parameters, step.weight_bytes)


def _sums(step: Step, batch: int) -> list[float]:
    """Operations, bytes and operators of so many samples."""
    operators = step.operators(batch)
    return [sum(one.flops for one in operators), sum(one.moved_bytes for one in operators), len(operators)]


def _name(work: Workload | Training | Transformer) -> str:
    return work.name


def _notes(step: Step, keys: Sequence[str], counts: Sequence[int], is_here: bool) -> list[str]:
    told = []
    if keys:
        told.append("PREDICTED: models of time, fitted to measurements; none of it was timed on the hardware named")
    if is_here:
        told.append(f"{HERE}: shares of one process and bare exchanges were timed; steps of several processes were not")
    if step.purpose is Purpose.INFERENCE and max(counts) > 1:
        told.append(
            "several devices answer as copies that know nothing of each other; handing out calls is not counted"
        )
    if any(device(key).value("power_watts") is not None for key in keys):
        told.append("joules are those of the data sheet's power, which is an upper bound")
    return told


def _keys(names: Sequence[str], is_here: bool) -> list[str]:
    if not names and not is_here:
        raise UsageError("on is empty; give at least one device, such as on=['h100-sxm']")
    return [device(name).key for name in names]


def _counts(count: int | Sequence[int]) -> list[int]:
    counts = [count] if isinstance(count, int) else list(count)
    if not counts or any(isinstance(one, bool) or not isinstance(one, int) or one < 1 for one in counts):
        raise UsageError(f"count is {count!r}; allowed are whole numbers of 1 or more")
    return counts


def _check(
    precision: str, keys: Sequence[str], prices: Mapping[str, float], measured: Mapping[str, tuple[float, ...]]
) -> None:
    if precision not in PRECISIONS:
        raise UsageError(f"precision is {precision!r}; allowed are {', '.join(PRECISIONS)}")
    for name, given in (("prices", prices), ("measured", measured)):
        unasked = [key for key in given if key not in keys]
        if unasked:
            raise UsageError(f"{name} has {', '.join(unasked)}, and the devices asked for are {', '.join(keys)}")
    if any(not (math.isfinite(price) and price >= 0) for price in prices.values()):
        raise UsageError(f"prices are {dict(prices)}; allowed are numbers of 0 or more, of a device for an hour")
    if not all(len(seen) in (2, 3) and seen[0] >= 1 and min(seen[1:]) > 0 and math.isfinite(sum(seen))
               for seen in measured.values()):  # fmt: skip
        raise UsageError(
            f"measured is {dict(measured)}; allowed are a count of 1 or more, samples a second, and perhaps the batch"
        )
