"""Times steps of two processes, what one process computes of them, and bare exchanges; adds a session to a file.

Two processes with one thread each, on two cores. In every round each case is timed alone, as one process computes its
share while the other sleeps, and together, in an order drawn anew. What is compared was measured side by side.
"""

from __future__ import annotations

import copy
import json
import os
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import nn

from predictions.processes_models import CASES, Case
from vivace.api.together import exchanges
from vivace.api.together.ranks import with_layout
from vivace.core.plan import Plan
from vivace.core.training.job import Training
from vivace.core.training.rig import Rig
from vivace.devices.prediction.processes import Spread
from vivace.distributed.layout import Layout
from vivace.distributed.pipelining.pipeline import inputs_of
from vivace.distributed.pipelining.stages import chain_of
from vivace.distributed.sharding import blocks_of
from vivace.distributed.team import Team
from vivace.distributed.tensor_plan import Pair, linear_pairs
from vivace.distributed.world import World
from vivace.measure import environment
from vivace.measure.clock import SystemClock
from vivace.measure.process import Limits, Worker
from vivace.techniques.parallel.spread import copied, example_of, looked_at
from vivace.training.loop import Loop
from vivace.training.rig import assemble
from vivace.training.service import Stepper, equip

FILE = Path(__file__).with_name("processes_here.json")
OLDER = Path(__file__).with_name("processes_older.json")
"""What was seen on a processor with AVX-512, and on one without."""
PROCESSES, MICRO = 2, 4
SECONDS = 0.12
"""How long one case is timed for in a round."""
WARM_STEPS, MOST_STEPS = 3, 40
LAYOUTS = {
    Spread.DATA: Layout(data=2), Spread.SHARD: Layout(shard=2), Spread.TENSOR: Layout(tensor=2),
    Spread.PIPELINE: Layout(pipeline=2, micro=MICRO),
}  # fmt: skip
CLOCK = SystemClock()
LIMITS = Limits(measure=600.0)
Call = Callable[[], object]


def open_ranks(arguments: Mapping[str, Any], payload: bytes, world: World) -> Timing:
    """The entry of a rank."""
    return Timing(world)


class Timing:
    """What a rank does: all cases, in all layouts, alone and together."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._together: dict[str, Call] = {}
        self._alone: dict[str, list[Call]] = {}
        self._steps: dict[str, int] = {}
        self._facts: dict[str, dict[str, Any]] = {}

    def prepare(self) -> dict[str, dict[str, Any]]:
        """Make every case ready and warm; what each exchanges and holds."""
        for case in CASES:
            for spread, layout in LAYOUTS.items():
                name = f"{case.name} {spread.value}"
                world = World(layout, self._world.watch, self._world.device)
                job = case.job()
                rig = equip(assemble(job).replace(ranks=world), job, with_layout(Plan(), layout))
                self._together[name] = Stepper(Loop(job, rig, None, ""))
                facts, alone = SHARES[spread](case, job, rig)
                self._alone[name] = alone
                self._facts[name] = {
                    "case": case.name, "spread": spread.value, "is_target": case.is_target,
                    "tensors": len(list(job.model().parameters())), **facts,
                }  # fmt: skip
        for name, step in self._together.items():
            for _ in range(WARM_STEPS):
                step()
            self._steps[name] = self._agreed(max(3, min(MOST_STEPS, int(SECONDS / _seconds_of(step, 2)))))
            for call in self._alone[name]:
                call()
        return self._facts

    def round(self, seed: int) -> dict[str, dict[str, Any]]:
        """Every case once: seconds of a step together, and of what one process computes, alone."""
        order = sorted(self._together)
        random.Random(seed).shuffle(order)
        found = {}
        for name in order:
            alone = self._by_one(lambda name=name: [_seconds_of(call, self._steps[name]) for call in self._alone[name]])
            together = _seconds_of(self._together[name], self._steps[name])
            found[name] = {"alone": alone, "together": together}
        return found

    def exchanges(self) -> dict[str, dict[int, float]]:
        """Seconds of bare exchanges, by their bytes."""
        return exchanges.timed()

    def _by_one(self, call: Callable[[], Any]) -> Any:
        """What the first rank does while the other sleeps."""
        dist.barrier()
        found = call() if dist.get_rank() == 0 else None
        dist.barrier()
        return found

    def _agreed(self, number: int) -> int:
        told = [number]
        dist.broadcast_object_list(told)
        return told[0]


def of_rows(case: Case, job: Training, equipped: Rig) -> tuple[dict[str, Any], list[Call]]:
    """Of copies: the step on half of the batch; all gradients are summed, beside the losses and what was unused."""
    size = sum(parameter.numel() for parameter in job.model().parameters()) * 4
    return {"exchanges": 3, "bytes": size}, [_step_of(Case(case.name, case.model, case.batch // 2, case.shape).job())]


def of_shards(case: Case, job: Training, equipped: Rig) -> tuple[dict[str, Any], list[Call]]:
    """Of shards: the same rows; every group is gathered twice and scattered once."""
    facts, alone = of_rows(case, job, equipped)
    return {**facts, "exchanges": 3 * (len(blocks_of(job.model())) + 1)}, alone


def of_pairs(case: Case, job: Training, equipped: Rig) -> tuple[dict[str, Any], list[Call]]:
    """Of tensor-parallel pairs: all rows, with pairs of half the width; their results and gradients are summed."""
    rig = assemble(job)
    batch = example_of(job)
    pairs = linear_pairs(copied(rig.model), lambda model: looked_at(job, model, batch))
    sizes = _numbers_through(rig.model, job, batch, pairs, case.batch / len(batch[1]))
    half = Case(case.name, lambda: _halved(case.model(), pairs), case.batch, case.shape).job()
    return {"exchanges": 2 * len(pairs), "bytes": 4 * sizes}, [_step_of(half)]


def of_stages(case: Case, job: Training, equipped: Rig) -> tuple[dict[str, Any], list[Call]]:
    """Of stages: each stage on one micro-batch, forward and backward, then each stage's update; the chain is cut where
    it was cut for both processes."""
    rig = assemble(job)
    feed = rig.feed
    batch = next(iter(feed.epoch(0)))
    given = inputs_of(rig.model, job.loss, batch)
    parts = [module for _, module in chain_of(rig.model, lambda: rig.model(given))]
    told: list[Any] = [len(equipped.gradients.pipeline.stage)]  # type: ignore[union-attr]
    dist.broadcast_object_list(told)  # of the first rank's, the first stage
    second = told[0]
    stages = [nn.Sequential(*copy.deepcopy(parts[:second])), nn.Sequential(*copy.deepcopy(parts[second:]))]
    rows = case.batch // MICRO
    x = given[:rows]
    between = stages[0](x).detach()
    calls: list[Call] = []
    for stage, own in zip(stages, (x, between.clone().requires_grad_()), strict=True):
        calls.append(lambda stage=stage, own=own: stage(own).square().mean().backward())
    for stage in stages:
        calls[stages.index(stage)]()
        optimizer = job.optimizer(stage.parameters())
        calls.append(optimizer.step)
    batches = iter(feed.epoch(0))

    def read() -> None:
        nonlocal batches
        if next(batches, None) is None:
            batches = iter(feed.epoch(0))

    return {"exchanges": 2 * MICRO, "bytes": 2 * MICRO * 4 * between.numel(), "micro": MICRO}, [*calls, read]


SHARES = {Spread.DATA: of_rows, Spread.SHARD: of_shards, Spread.TENSOR: of_pairs, Spread.PIPELINE: of_stages}


def _step_of(job: Training) -> Call:
    return Stepper(Loop(job, assemble(job), None, ""))


def _halved(model: nn.Module, pairs: list[Pair]) -> nn.Module:
    """A model whose pairs have half of their width."""
    for pair in pairs:
        for name in (*pair.first, pair.second):
            parent = model.get_submodule(name.rpartition(".")[0])
            layer = model.get_submodule(name)
            sizes = [layer.in_features, layer.out_features]
            sizes[0 if name == pair.second else 1] //= PROCESSES
            setattr(parent, name.rpartition(".")[2], nn.Linear(*sizes))
    return model


def _numbers_through(model: nn.Module, job: Training, batch: Any, pairs: list[Pair], times: float) -> int:
    """How many numbers go into and come out of all pairs, for a whole batch."""
    seen: list[int] = []
    hooks = [
        model.get_submodule(name).register_forward_hook(
            lambda _, given, gave, is_last=is_last: seen.append((gave if is_last else given[0]).numel())
        )
        for pair in pairs
        for name, is_last in ((pair.first[0], False), (pair.second, True))
    ]
    looked_at(job, model, batch)
    for hook in hooks:
        hook.remove()
    return int(sum(seen) * times)


def _seconds_of(call: Call, times: int) -> float:
    """The median of so many calls."""
    seconds = []
    for _ in range(times):
        began = CLOCK.now()
        call()
        seconds.append(CLOCK.now() - began)
    return statistics.median(seconds)


def _surroundings() -> dict[str, str]:
    """So that processes find this file, and the store does not tell of every short wait."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TORCH_CPP_LOG_LEVEL": "ERROR"}


def add_session(seconds: float, file: Path = FILE) -> str:
    """Let two processes time all cases, again and again for so long, once at least, and add what was seen to a file;
    the last round, to be read."""
    document = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"sessions": []}
    before, began = environment.snapshot(), CLOCK.now()
    team = Team(processes=PROCESSES, deadline=600.0)
    asked = {"team": team.to_json(), "entry": "predictions.processes_measure:open_ranks", "arguments": {}}
    with tempfile.TemporaryDirectory() as name, Worker(Path(name), LIMITS, _surroundings()) as worker:
        worker.open("vivace.distributed.launch:open_launcher", asked, b"")

        def ask(method: str, **arguments: Any) -> Any:
            return worker.call("ask", {"method": method, "arguments": arguments})["result"]

        facts = ask("prepare")
        prepared = CLOCK.now() - began
        exchanges = [ask("exchanges")]
        seen: list[Any] = []
        while not seen or CLOCK.now() - began < seconds:
            seen.append(ask("round", seed=1000 * len(document["sessions"]) + len(seen)))
        exchanges.append(ask("exchanges"))
    document["facts"] = facts
    told = {"before": before, "after": environment.snapshot(), "exchanges": exchanges, "rounds": seen}
    document["sessions"].append(told)
    file.write_text(json.dumps(document) + "\n", encoding="utf-8")
    lines = [
        f"{name:26} together {one['together'] * 1e3:8.2f} ms, alone {[round(each * 1e3, 2) for each in one['alone']]}"
        for name, one in sorted(seen[-1].items())
    ]
    return "\n".join([*lines, f"{len(seen)} rounds; {prepared:.0f} s to make all cases ready"])
