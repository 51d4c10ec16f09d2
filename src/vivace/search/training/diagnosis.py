"""Splits a training step into its phases, in a worker of its own: each is timed, counted and weighed."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile

from vivace.core.errors import NotApplicable, UsageError
from vivace.core.measurement import Interval
from vivace.core.plan import Plan
from vivace.core.technique import Stage, Technique
from vivace.core.training.bound import Bandwidth
from vivace.core.training.job import Training
from vivace.core.training.rig import Ranks, Rig
from vivace.core.training.run import Advice, Basis, Diagnosis
from vivace.devices import machine
from vivace.devices.bandwidths import measure_bandwidths, seconds_to_move
from vivace.distributed.world import bytes_here
from vivace.measure.clock import SystemClock
from vivace.measure.services.probe import fastest_device_seconds, fastest_seconds
from vivace.measure.stats import mean_interval
from vivace.runtimes.graphs.flops import counter
from vivace.search.training.bounds import (
    Noise,
    Split,
    bound_with_evidence,
    contradiction,
    noise_of,
    of_rows,
    roofline_of,
)
from vivace.search.training.ranges import covered, extent
from vivace.search.training.traffic import Traffic, fastest
from vivace.techniques.memory.channels_last import ChannelsLast
from vivace.techniques.memory.fused_optimizer import FusedOptimizer
from vivace.techniques.parallel.threads import Threads
from vivace.techniques.precision.cuda_bfloat16 import CudaBfloat16
from vivace.techniques.precision.tf32 import Tf32
from vivace.techniques.target.captured_step import CapturedStep
from vivace.training.feed import no_batch, watched
from vivace.training.feeding.transfer import device_of
from vivace.training.loop import score_of
from vivace.training.rig import assemble, check_fresh, check_rates, samples_in
from vivace.training.service import equip
from vivace.training.step import around, split, train_step

WARM_STEPS, PROFILED_STEPS = 3, 5
WHAT_IF_SECONDS, TURNS = 0.2, 5
"""How long each turn of a technique that is tried in passing may take, beside three steps, and how many there are."""
WORTH = 1.05
"""The least gain that is advised: less is noise, measured like this."""
FILL_SECONDS = 10.0
"""How long the feed of a plan may take for its first epoch, in which caches are filled, before it is timed."""
WATCHED_STEPS = 3
"""Steps whose operators are watched one by one, after one that tells in which order memory is used."""
COPY_SECONDS = 0.03
"""How long each copy runs that says how fast this machine moves working sets."""
COMPILED = "## Call CompiledFxGraph"
"""How the profiler calls what a compiler made of many operators (torch._inductor.output_code)."""
EXCHANGED = ("gloo:", "nccl:", "ncclDevKernel")
"""How the profiler's names of what processes exchange begin."""


def open_diagnosis(arguments: Mapping[str, Any], payload: tuple[Training, Plan]) -> Diagnoser:
    """The entry of a worker that diagnoses."""
    return Diagnoser(*payload)


class Diagnoser:
    """Takes steps of a job with a plan, together with other `ranks` where there are; the empty plan is the original, as
    it was given."""

    def __init__(self, job: Training, plan: Plan, ranks: Ranks | None = None) -> None:
        self._job = job
        self._rig = equip(assemble(job).replace(ranks=ranks), job, plan)
        self._is_compiled = any(technique.stage in (Stage.COMPILE, Stage.TARGET) for technique in plan)
        self._epoch = 0
        self._batches = self._endless()
        self._clock = SystemClock()
        self._device = device_of(self._rig.model).type
        self._spent = {"forward": 0.0, "update": 0.0}
        self._timed = self._rig.replace(
            forward=self._marked("forward", self._rig.forward), update=self._marked("update", self._rig.update)
        )

    def read(self, steps: int, flops: float | None = None, until: float | None = None) -> dict[str, Any]:
        """Medians of each phase over `steps` steps, counts and bytes; see `Diagnosis`. With `flops`, which were counted
        of the original, what a plan leaves as it is, is not looked at again: the operations, the evaluation, and
        whether the schedule lasts, unless the training stops at a score (`until`) before."""
        with around(self._rig.outside):
            return self._read(steps, flops, until)

    def _read(self, steps: int, flops: float | None, until: float | None) -> dict[str, Any]:
        rig = self._rig
        check_fresh(self._job)
        short = check_rates(self._job, self._rig, until) if flops is None else ""
        try:
            self._phases()
        except (UsageError, NotApplicable):
            raise
        except Exception as error:  # the user's code may fail in any way
            if flops is not None:  # of a plan
                raise
            raise UsageError(_fails(error)) from error
        for _ in range(1, WARM_STEPS):
            self._phases()
        notes = self._fill() if flops is not None and rig.ranks is None else [short] if short else []
        rows = [self._phases() for _ in range(steps)]
        columns = [statistics.median(column) for column in zip(*rows, strict=True)]
        names = ("input_seconds", "forward_seconds", "backward_seconds", "update_seconds", "whole_seconds")
        states = [value for state in rig.optimizer.state.values() for value in state.values()]
        overhead, exchanging, operating = self._profiled()
        watched_calls = self._watched(notes)
        tried = max(3, min(steps, int(WHAT_IF_SECONDS / max(sum(columns[1:]), 1e-9))))
        return {
            **dict(zip(names, columns, strict=True)), "steps": steps, "threads": torch.get_num_threads(),
            "device": self._device,
            "overhead_share": overhead, "noise": dataclasses.astuple(noise_of(rows, operating)),
            "communication_seconds": exchanging * sum(columns[1:]),
            "evaluate_seconds": self._evaluate() if flops is None else None,
            "flops": self._flops() if flops is None else flops,
            "parameter_bytes": _bytes(rig.model.parameters()),
            "gradient_bytes": _bytes(p.grad for p in rig.model.parameters() if p.grad is not None),
            "optimizer_bytes": _bytes(value for value in states if torch.is_tensor(value)),
            "activation_bytes": self._activations() if rig.ranks is None else 0, "notes": notes,
            "operators": watched_calls,
            "what_ifs": self._what_ifs(tried) if flops is None else None,
            "cache": "sample-cache" if self._job.has_samples else "",
        }  # fmt: skip

    def _endless(self) -> Iterator[Any]:
        for self._epoch in itertools.count():
            is_empty = True
            for batch in watched(self._rig.feed.epoch(self._epoch), self._epoch):
                is_empty = False
                yield batch
            if is_empty:  # and so may be all that follow
                raise no_batch(self._epoch)

    def _usual(self) -> Any:
        """A batch that is not the smaller one at the end of an epoch, if there are others."""
        return max((next(self._batches), next(self._batches)), key=samples_in)

    def _fill(self) -> list[str]:
        """Walk the rest of the first epoch, so that what a plan keeps of it is there; a note where that takes long."""
        ends = self._clock.now() + FILL_SECONDS
        while self._epoch == 0 and self._clock.now() < ends:
            next(self._batches)
        told = f"the feed's first epoch takes more than {FILL_SECONDS:.0f} s: what it keeps was not all there yet"
        return [told] if self._epoch == 0 else []

    def _marked(self, phase: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, whose seconds are added to those of a phase."""

        def timed(*arguments: Any) -> Any:
            started = self._now()
            found = call(*arguments)
            self._spent[phase] += self._now() - started
            return found

        return timed

    def _now(self) -> float:
        """The time, when all that was launched on a device is done."""
        if self._device == "cuda":
            torch.cuda.synchronize()
        return self._clock.now()

    def _phases(self) -> tuple[float, float, float, float, float]:
        """Seconds of waiting, forward, backward and update, and of forward and backward where they are one piece."""
        started = self._clock.now()
        batch = next(self._batches)
        fed = self._clock.now()
        self._spent = dict.fromkeys(self._spent, 0.0)
        loss = float(train_step(self._timed, batch))
        step = self._clock.now() - fed
        if not math.isfinite(loss):
            raise UsageError(_not_finite(loss))
        forward, update = self._spent["forward"], self._spent["update"]
        if self._rig.gradients is not None:
            return fed - started, 0.0, 0.0, update, step - update
        return fed - started, forward, step - forward - update, update, 0.0

    def _profiled(self) -> tuple[float, float, float]:
        """The share of computing in which no operator ran, by PyTorch's profiler, whose own cost is in both; on a CUDA
        device that in which no kernel ran on it, while steps follow each other as in a training. And the share in
        which something was exchanged between processes; and the seconds of a step's operators."""
        batches = [next(self._batches) for _ in range(PROFILED_STEPS)]
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self._device == "cuda" else [])]
        with profile(activities=activities) as found:
            started = self._now()
            for batch in batches:
                train_step(self._rig, batch)
            wall = self._now() - started
        exchanging = min(1.0, _exchanging(found) / wall)
        if self._device == "cuda":
            busy = sum(float(e.self_device_time_total) for e in _kernels(found)) * 1e-6
            return max(0.0, 1.0 - busy / wall), exchanging, busy / PROFILED_STEPS
        self._is_compiled |= any(event.key.startswith(COMPILED) for event in found.key_averages())
        ran = (event for event in found.key_averages() if "::" in event.key or event.key.startswith(COMPILED))
        busy = sum(float(event.self_cpu_time_total) for event in ran) * 1e-6
        return max(0.0, 1.0 - busy / wall), exchanging, busy / PROFILED_STEPS

    def _watched(self, notes: list[str]) -> dict[str, Any]:
        """The operators of a step, each with its work and how fast this machine moves working sets; nothing where
        several processes train. Of what was compiled single operators are not seen: then there are none."""
        if self._rig.ranks is not None:
            return {}
        timed = fastest_device_seconds if self._device == "cuda" else fastest_seconds
        known = measure_bandwidths(lambda kernel: timed(kernel, COPY_SECONDS), self._device)
        traffic, steps = Traffic(self._now, known, self._device), []
        rig = self._rig.replace(
            forward=traffic.noting("forward", self._rig.forward), update=traffic.noting("update", self._rig.update)
        )
        batches = [] if self._is_compiled else [next(self._batches) for _ in range(1 + WATCHED_STEPS)]
        try:
            for batch in batches:
                with traffic:
                    train_step(rig, batch)
                steps.append(traffic.taken())
        except Exception as error:  # noqa: BLE001  a mode of PyTorch's below the user's own code may fail in any way
            notes.append(f"operators were not watched one by one: {type(error).__name__}: {_first_line(error)}")
            steps = []
        return {
            "calls": of_rows([dataclasses.astuple(call) for call in fastest(steps[1:])]),
            "bandwidths": [dataclasses.astuple(one) for one in known],
            "launch_seconds": traffic.launch_seconds(),
        }

    def _what_ifs(self, steps: int) -> list[dict[str, Any]]:
        """The seconds of computing a step on a batch that is in memory with techniques that cost nothing to try, each
        alone, and as given (`given`), in turns: the machine's state changes more than most of them bring. One median
        for each turn."""
        batch = self._usual()
        found: list[dict[str, Any]] = []
        for technique in self._cheap():
            with contextlib.suppress(NotApplicable, RuntimeError):  # such as sparse gradients, which no kernel takes
                rig = equip(assemble(self._job), self._job, Plan((technique,)))
                turns = [(one, self._computing(one, batch, steps)) for _ in range(TURNS) for one in (self._rig, rig)]
                given, seconds = ([taken for of, taken in turns if of is one] for one in (self._rig, rig))
                found.append({"technique": str(technique), "given": given, "seconds": seconds})
        return found

    def _cheap(self) -> list[Technique]:
        if self._device == "cuda":
            return [Tf32(), CudaBfloat16(), FusedOptimizer(), ChannelsLast(), CapturedStep()]
        cores = {1, machine.detect().cores_allowed} - {torch.get_num_threads()}
        return [*(Threads(count) for count in sorted(cores)), FusedOptimizer(), ChannelsLast()]

    def _computing(self, rig: Rig, batch: Any, steps: int) -> float:
        taken = []
        with around(rig.outside):
            for _ in range(WARM_STEPS + steps):
                started = self._now()
                train_step(rig, batch)
                taken.append(self._now() - started)
        return statistics.median(taken[WARM_STEPS:])

    def _flops(self) -> float:
        with counter() as counted:
            self._rig.forward(self._usual()).backward()  # type: ignore[no-untyped-call]
        return float(counted.get_total_flops())

    def _activations(self) -> int:
        """Bytes that the forward pass keeps for the backward pass, each piece of memory once, without parameters."""
        own = {parameter.untyped_storage().data_ptr() for parameter in self._rig.model.parameters()}
        kept: list[tuple[int, int]] = []

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            if tensor.layout is torch.strided and tensor.untyped_storage().data_ptr() not in own:
                kept.append(extent(tensor))
            return tensor

        batch = self._usual()
        with saved_tensors_hooks(pack, lambda tensor: tensor), around(self._rig.around):
            self._rig.forward(batch if self._rig.parts == 1 else split(batch, self._rig.parts)[0])
        return round(covered(kept))

    def _evaluate(self) -> float | None:
        if self._job.evaluate is None:
            return None
        started = self._clock.now()
        score_of(self._job, self._rig.model)
        return self._clock.now() - started


def diagnosis_of(read: Mapping[str, Any], ceiling_gflops: float | None) -> Diagnosis:
    """What was read, with its bound and the evidence for it.

    >>> read = {"input_seconds": 9e-3, "forward_seconds": 1e-3, "backward_seconds": 1e-3, "update_seconds": 1e-3,
    ...         "overhead_share": 0.5, "flops": 1e6, "steps": 20, "threads": 1, "evaluate_seconds": None, "notes": [],
    ...         "parameter_bytes": 0, "gradient_bytes": 0, "optimizer_bytes": 0, "activation_bytes": 0,
    ...         "what_ifs": [], "cache": "sample-cache"}
    >>> diagnosis_of(read, None).bound.value, [f"{one.gain:.2g}" for one in diagnosis_of(read, None).advice]
    ('input', ['4', '1.1'])
    """
    apart = ("overhead_share", "notes", "what_ifs", "cache", "operators", "noise")
    fields = {key: value for key, value in read.items() if key not in apart}
    computing = sum(read.get(f"{phase}_seconds", 0.0) for phase in ("forward", "backward", "update", "whole"))
    step = computing + read["input_seconds"]
    overhead = read["overhead_share"] * computing
    split = Split(
        step, read["input_seconds"], overhead, read.get("communication_seconds", 0.0),
        None if ceiling_gflops is None else read["flops"] / (ceiling_gflops * 1e9), _least_traffic(read),
        Noise(*read["noise"]) if "noise" in read else None,
    )  # fmt: skip
    roofline = roofline_of(read.get("operators", {}), ceiling_gflops, split)
    wrong = "" if roofline is None else contradiction(roofline)
    found = bound_with_evidence(split, None if wrong else roofline)
    return Diagnosis(
        **fields, step_seconds=step, overhead_seconds=overhead, ceiling_gflops=ceiling_gflops, bound=found.bound,
        evidence=found.evidence, rival=found.rival, notes=(*read["notes"], *([wrong] if wrong else [])),
        roofline=None if wrong else roofline,
        advice=() if read["what_ifs"] is None else _advice(step, overhead, read),
    )  # fmt: skip


def _least_traffic(read: Mapping[str, Any]) -> float | None:
    """Seconds to read weights in both passes and write them, and to write and read gradients and state once."""
    known = [Bandwidth(*numbers) for numbers in read.get("operators", {}).get("bandwidths", ())]
    if not known:
        return None
    weights, gradients, state = (read[f"{kind}_bytes"] for kind in ("parameter", "gradient", "optimizer"))
    return seconds_to_move(3 * weights + 2 * gradients + 2 * state, weights + gradients + state, known)


def _advice(step: float, overhead: float, read: Mapping[str, Any]) -> tuple[Advice, ...]:
    """What is worth doing: first what was measured, by the low end of its interval, then bounds, the largest first."""
    waiting = read["input_seconds"]
    bounds = [
        Advice("the batch is in memory already", read["cache"], step / max(step - waiting, 1e-9), Basis.PREDICTED),
        Advice("no time between operators", "compiled-training", step / max(step - overhead, 1e-9), Basis.PREDICTED),
    ]
    measured: list[tuple[float, Advice]] = []
    for one in read["what_ifs"]:
        gain = gained(one["given"], one["seconds"], waiting)
        change = f"the same step with {one['technique']}"
        measured.append((gain.low, Advice(change, one["technique"], gain.value, Basis.MEASURED, gain)))
    sure = [one for low, one in sorted(measured, key=lambda pair: -pair[0]) if low > 1.0 and one.gain >= WORTH]
    return (*sure, *sorted((one for one in bounds if one.gain >= WORTH), key=lambda one: -one.gain))


def gained(given: Sequence[float], seconds: Sequence[float], waiting: float) -> Interval:
    """How many times as fast a step is, with its 95% interval over turns that were taken one after the other: Student's
    t of the logarithms of their ratios. What `waiting` for the batch takes stays.

    >>> gained([2.0, 2.0, 2.0], [1.0, 1.0, 1.0], waiting=0.0).low
    2.0
    """
    pairs = zip(given, seconds, strict=True)
    found = mean_interval([math.log((waiting + one) / (waiting + other)) for one, other in pairs], error=0.025)
    return Interval(*(math.exp(min(value, 700.0)) for value in (found.value, found.low, found.high)))


def _fails(error: Exception) -> str:
    return (
        f"the job's own first step fails, as it was given: {type(error).__name__}: {_first_line(error)}; "
        "look whether the model takes what the data give, and the loss what the model answers"
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "no message")


def _not_finite(loss: float) -> str:
    return (
        f"the loss is {loss} in the first steps of the original; allowed is a finite number: look for a division by "
        "zero or a logarithm of zero in the loss, for NaN in the data, or lower the learning rate"
    )


def _kernels(found: Any) -> list[Any]:
    """What ran on the device itself: kernels and copies, without the operators that launched them."""
    return [
        event for event in found.key_averages() if event.device_type is not None and event.device_type.name == "CUDA"
    ]


def _exchanging(found: Any) -> float:
    """Seconds in which anything was exchanged, however much of it at the same time."""
    return 1e-6 * covered(
        (one.time_range.start, one.time_range.end) for one in found.events() if one.name.startswith(EXCHANGED)
    )


def _bytes(tensors: Any) -> int:
    return bytes_here(tensors)
