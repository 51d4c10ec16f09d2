"""Splits a training step into its phases, in a worker of its own: each is timed, counted and weighed."""

from __future__ import annotations

import contextlib
import itertools
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from vivace.core.errors import NotApplicable, UsageError
from vivace.core.plan import Plan
from vivace.core.technique import Technique
from vivace.core.training.job import Training
from vivace.core.training.rig import Rig
from vivace.core.training.run import Advice, Basis, Diagnosis, StepBound
from vivace.devices import machine
from vivace.devices.ceilings import measure_ceilings
from vivace.measure.clock import SystemClock
from vivace.measure.services.probe import fastest_seconds
from vivace.techniques.memory.channels_last import ChannelsLast
from vivace.techniques.memory.fused_optimizer import FusedOptimizer
from vivace.techniques.parallel.threads import Threads
from vivace.training.loop import score_of
from vivace.training.rig import assemble, check_fresh
from vivace.training.service import equip
from vivace.training.step import around, train_step

WARM_STEPS, PROFILED_STEPS = 3, 5
WHAT_IF_SECONDS = 0.5
"""How long each technique that is tried in passing may take, beside three steps."""
WORTH = 1.05
"""The least gain that is advised: less is noise, measured like this."""
MOSTLY = 0.4
"""The share of a step from which on waiting, or overhead, is what bounds it."""
NEAR_CEILING = 0.3
"""The share of the ceiling from which on arithmetic bounds the rest."""


def open_diagnosis(arguments: Mapping[str, Any], payload: Training) -> Diagnoser:
    """The entry of a worker that diagnoses."""
    return Diagnoser(payload)


class Diagnoser:
    """Takes steps of the original, as it was given."""

    def __init__(self, job: Training) -> None:
        self._job = job
        self._rig = assemble(job)
        self._batches = self._endless()
        self._clock = SystemClock()

    def read(self, steps: int) -> dict[str, Any]:
        """Medians of each phase over `steps` steps, counts and bytes; see `Diagnosis`."""
        rig = self._rig
        check_fresh(self._job)
        for _ in range(WARM_STEPS):
            self._phases(rig)
        rows = [self._phases(rig) for _ in range(steps)]
        columns = [statistics.median(column) for column in zip(*rows, strict=True)]
        names = ("input_seconds", "forward_seconds", "backward_seconds", "update_seconds")
        states = [value for state in rig.optimizer.state.values() for value in state.values()]
        return {
            **dict(zip(names, columns, strict=True)), "steps": steps, "threads": torch.get_num_threads(),
            "overhead_share": self._overhead_share(), "evaluate_seconds": self._evaluate(), "flops": self._flops(),
            "parameter_bytes": _bytes(rig.model.parameters()),
            "gradient_bytes": _bytes(p.grad for p in rig.model.parameters() if p.grad is not None),
            "optimizer_bytes": _bytes(value for value in states if torch.is_tensor(value)),
            "activation_bytes": self._activations(), "notes": [],
            "what_ifs": self._what_ifs(max(3, min(steps, int(WHAT_IF_SECONDS / max(sum(columns[1:]), 1e-9))))),
        }  # fmt: skip

    def _endless(self) -> Iterator[Any]:
        for epoch in itertools.count():
            yield from self._rig.feed.epoch(epoch)

    def _phases(self, rig: Rig) -> tuple[float, float, float, float]:
        now = self._clock.now
        started = now()
        batch = next(self._batches)
        fed = now()
        rig.optimizer.zero_grad(set_to_none=True)
        with around(rig.around):
            loss = rig.forward(batch)
        if not math.isfinite(float(loss.detach())):
            raise UsageError(_not_finite(float(loss.detach())))
        forward = now()
        loss.backward()  # type: ignore[no-untyped-call]
        backward = now()
        rig.update()
        return fed - started, forward - fed, backward - forward, now() - backward

    def _overhead_share(self) -> float:
        """The share of computing in which no operator ran, by PyTorch's profiler, whose own cost is in both."""
        batches = [next(self._batches) for _ in range(PROFILED_STEPS)]
        with profile(activities=[ProfilerActivity.CPU]) as found:
            started = self._clock.now()
            for batch in batches:
                self._compute(batch)
            wall = self._clock.now() - started
        in_operators = sum(float(event.self_cpu_time_total) for event in found.key_averages() if "::" in event.key)
        return max(0.0, 1.0 - in_operators * 1e-6 / wall)

    def _compute(self, batch: Any) -> None:
        train_step(self._rig, batch)

    def ceiling_gflops(self) -> float:
        """The machine's rate in float32 with the threads of this process, measured now in about a second."""
        found = measure_ceilings([torch.get_num_threads()], fastest_seconds, ("f32",), copy_bytes=1 << 20)
        return found[0].gflops["f32"]

    def _what_ifs(self, steps: int) -> list[dict[str, Any]]:
        """The seconds of computing a step on a batch that is in memory: as given, and with techniques that cost
        nothing to try, each alone."""
        batch = next(self._batches)
        cache = "sample-cache" if self._job.has_samples else ""
        found = [{"technique": cache, "seconds": self._computing(self._rig, batch, steps)}]
        for technique in self._cheap():
            with contextlib.suppress(NotApplicable):
                rig = equip(assemble(self._job), self._job, Plan((technique,)))
                found.append({"technique": str(technique), "seconds": self._computing(rig, batch, steps)})
        return found

    def _cheap(self) -> list[Technique]:
        cores = {1, machine.detect().cores_allowed} - {torch.get_num_threads()}
        return [*(Threads(count) for count in sorted(cores)), FusedOptimizer(), ChannelsLast()]

    def _computing(self, rig: Rig, batch: Any, steps: int) -> float:
        taken = []
        with around(rig.outside):
            for _ in range(WARM_STEPS + steps):
                started = self._clock.now()
                train_step(rig, batch)
                taken.append(self._clock.now() - started)
        return statistics.median(taken[WARM_STEPS:])

    def _flops(self) -> float:
        with FlopCounterMode(display=False) as counter:
            self._rig.forward(next(self._batches)).backward()  # type: ignore[no-untyped-call]
        return float(counter.get_total_flops())

    def _activations(self) -> int:
        """Bytes that the forward pass keeps for the backward pass, each piece of memory once, without parameters."""
        own = {parameter.untyped_storage().data_ptr() for parameter in self._rig.model.parameters()}
        kept: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with saved_tensors_hooks(pack, lambda tensor: tensor):
            self._rig.forward(next(self._batches))
        return sum(kept.values())

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
    ...         "what_ifs": [{"technique": "", "seconds": 3e-3}]}
    >>> diagnosis_of(read, None).bound.value, [f"{one.gain:.2g}" for one in diagnosis_of(read, None).advice]
    ('input', ['4', '1.1'])
    """
    fields = {key: value for key, value in read.items() if key not in ("overhead_share", "notes", "what_ifs")}
    computing = sum(read[f"{phase}_seconds"] for phase in ("forward", "backward", "update"))
    step = computing + read["input_seconds"]
    overhead = read["overhead_share"] * computing
    floor = None if ceiling_gflops is None else read["flops"] / (ceiling_gflops * 1e9)
    bound, evidence = _bound(step, read["input_seconds"], overhead, floor)
    return Diagnosis(
        **fields, step_seconds=step, overhead_seconds=overhead, ceiling_gflops=ceiling_gflops, bound=bound,
        evidence=evidence, notes=tuple(read["notes"]),
        advice=_advice(step, read["input_seconds"], overhead, read["what_ifs"]),
    )  # fmt: skip


def _advice(step: float, waiting: float, overhead: float, what_ifs: Sequence[Mapping[str, Any]]) -> tuple[Advice, ...]:
    """What is worth doing, the largest gain first."""
    as_given, *others = what_ifs
    found = [
        Advice("the batch is in memory already", as_given["technique"], step / as_given["seconds"], Basis.MEASURED),
        Advice("no time between operators", "compiled-training", step / max(step - overhead, 1e-9), Basis.PREDICTED),
    ]
    for one in others:  # what waiting costs stays
        gain = (waiting + as_given["seconds"]) / (waiting + one["seconds"])
        found.append(Advice(f"the same step with {one['technique']}", one["technique"], gain, Basis.MEASURED))
    worth = [one for one in found if one.gain >= WORTH]
    return tuple(sorted(worth, key=lambda one: one.gain, reverse=True))


def _not_finite(loss: float) -> str:
    return (
        f"the loss is {loss} in the first steps of the original; allowed is a finite number: look for a division by "
        "zero or a logarithm of zero in the loss, for NaN in the data, or lower the learning rate"
    )


def _bound(step: float, waiting: float, overhead: float, floor: float | None) -> tuple[StepBound, str]:
    if waiting >= MOSTLY * step and waiting >= overhead:
        return StepBound.INPUT, f"{waiting / step:.0%} of a step is waiting for its batch"
    if overhead >= MOSTLY * step:
        return StepBound.OVERHEAD, f"in {overhead / step:.0%} of a step no operator runs: it is Python and launching"
    if floor is None:
        return StepBound.MEMORY, "neither input nor overhead; the machine's ceiling was not measured"
    if floor >= NEAR_CEILING * step:
        return StepBound.COMPUTE, f"the counted operations alone take {floor / step:.0%} of a step at the ceiling"
    return StepBound.MEMORY, (
        f"the counted operations take {floor / step:.0%} of a step at the ceiling, so most of it moves data"
    )


def _bytes(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
