"""One workload of the benchmark: our artifact and every peer against eager, by the project's own paired measurement."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

import vivace as vv
from peers import FOR_CARDS, PEERS, missing, title
from prepare import HERE, WORK
from vivace.core.compute import Reach
from vivace.core.errors import VivaceError, WorkerFailure
from vivace.core.measurement import Comparison, Interval, Outcome
from vivace.core.quality import Gate, Quality, QualityVerdict
from vivace.core.result import Trial
from vivace.core.structure import Structure
from vivace.data import samples
from vivace.measure import environment
from vivace.measure.gate import judge_scores
from vivace.measure.paired import ArmSpec, StopRule, compare
from vivace.measure.process import STANDARD, Limits, Phase, Worker

WORKLOADS = (
    "digits_cnn", "mnist_mlp", "resnet18", "mobilenet", "transformer", "lstm", "vision_transformer", "text_encoder",
    "text_encoder_16", "decoder_prefill", "tabular", "conv1d", "unet", "speech_encoder", "tiny_mlp",
)  # fmt: skip
EVERY = (*PEERS, *FOR_CARDS)
TIMED_CALLS = 8
"""Distinct inputs that every arm walks. No tool here keeps answers, so none are held out to unmask that."""
CALIBRATION_CALLS = 300
"""What nncf.quantize takes by default; every peer that calibrates gets as many."""
JUDGED_SAMPLES = 2000
"""Whole calls of at least this many samples judge each arm, or all calls where there are fewer."""
EAGER_SAMPLES = 64
"""Eager PyTorch answers so many samples at once for judging, which changes nothing but rounding for these networks.
Every other arm answers as it is timed."""
DEADLINE = 180.0
"""Seconds that a peer may take to convert, and then to compile and answer what it is judged on."""
UNSETTLED = 1.25
"""A peer's interval whose ends differ by more does not tell whom it comes near: it is timed again, as often as ours."""
NEAR = 0.85
"""The share of the fastest peer's speed from which on the next one may in truth be the fastest."""
PEER_LIMITS = dataclasses.replace(Limits().within(DEADLINE), first_call=DEADLINE)
NOT_JUDGED = "NOT JUDGED"
"""The verdict on a peer that is slower than the best one whose quality held: it could not be the best."""
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much to spend: the search's time limit, and how far each comparison goes.

    `restarts` and `seconds` of blocks are for ours, against eager and against each contender; `peer_restarts` and
    `peer_seconds` for a peer against eager, which only finds the contenders. `final_seconds` is how long ours against a
    contender may go on adding restarts that disagree.
    """

    time: str = "2m"
    restarts: int = 3
    seconds: float = 6.0
    peer_restarts: int = 1
    peer_seconds: float = 2.0
    final_seconds: float = 90.0
    fixed_shapes: bool = False
    peers: tuple[str, ...] = PEERS
    device: str = "cpu"

    def rule(self, seconds: float) -> StopRule:
        return StopRule(max_seconds=seconds, warm_seconds=1.0)


@dataclasses.dataclass(frozen=True)
class Race:
    """A workload made ready: its calls are stored once, and every arm is compared on them."""

    name: str
    work: vv.Workload
    budget: vv.Budget
    folder: Path
    effort: Effort
    say: Say

    @staticmethod
    def ready(name: str, effort: Effort, say: Say) -> Race:
        """Train or read the network and write its calls."""
        module = importlib.import_module(f"workloads.{name}")
        folder = WORK / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        race = Race(name, placed(module.workload(), effort.device), module.BUDGET, folder, effort, say)
        race.write_calls("timed", [inputs for inputs, _ in race.work.data[:TIMED_CALLS]])
        return race

    @property
    def judged(self) -> list[tuple[Tensor, Tensor]]:
        """The calls that every arm is judged on."""
        return self.work.data[: -(-JUDGED_SAMPLES // self.work.inputs[0].shape[0])]

    def write_calls(self, part: str, inputs: Sequence[Tensor]) -> Path:
        call = Structure("dict", (Structure("tensor"),), ("input",))
        return samples.write(self.folder / part, [[one] for one in inputs], call, 1)

    def run(self, earlier: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Everything about this workload, as JSON.

        With an `earlier` result the tools' numbers against eager are taken from it, but for the effort's peers, and
        only find the contenders; ours, and ours against each contender, are measured anew.
        """
        before, effort = environment.snapshot(), dataclasses.asdict(self.effort)
        ours, record = self.optimize()
        quality = {"quality": summary(self.judge("ours", ours, STANDARD))}
        arms = {"vivace": self.against_eager("ours", ours, self.effort.restarts, self.effort.seconds) | quality}
        known = {} if earlier is None else earlier["arms"]
        for peer in (name for name in EVERY if name in self.effort.peers or name in known):
            arms[peer] = self.try_peer(peer) if peer in self.effort.peers else known[peer]
        finals = {peer: self.final(peer, ours) for peer in contenders(arms, lambda peer: self.verdict(peer, arms))}
        best = min(finals, key=lambda peer: finals[peer]["value"] or math.inf, default=None)
        return {
            "workload": self.name, "shape": list(self.work.inputs[0].shape), "budget": self.budget.drop,
            "optimize": record, "arms": arms, "best_peer": best,
            "ours_over_contenders": finals, "ours_over_best_peer": finals[best] if best else None,
            "conditions": {"before": before, "after": environment.snapshot(), "effort": effort},
            "tools_measured": earlier and {"date": earlier["date"], "conditions": earlier["conditions"]},
        }  # fmt: skip

    def verdict(self, peer: str, arms: dict[str, dict[str, Any]]) -> str:
        """A peer's verdict, which is found when it is first asked for."""
        if arms[peer]["quality"]["verdict"] == NOT_JUDGED:
            self.say(f"{self.name}: judging {title(peer)}")
            try:
                arms[peer]["quality"] = summary(self.judge(peer, self.peer_spec(peer), PEER_LIMITS))
            except VivaceError as error:
                arms[peer] |= failed(error)
        found: str = arms[peer]["quality"]["verdict"]
        return found

    def final(self, peer: str, ours: ArmSpec) -> dict[str, float | None]:
        """Ours over a contender: the figure that counts."""
        self.say(f"{self.name}: ours against {title(peer)}")
        effort = self.effort
        spec, name = self.peer_spec(peer), f"final-{peer}"
        return interval(self.compare(spec, ours, name, effort.restarts, effort.seconds, effort.final_seconds))

    def optimize(
        self, time: str | None = None, exhaustive: bool = False, without: Sequence[str] = ()
    ) -> tuple[ArmSpec, dict[str, Any]]:
        """Our artifact, as an arm, and what the search says of it; `without` are techniques that it may not use."""
        time, fixed_shapes = time or self.effort.time, self.effort.fixed_shapes
        self.say(f"{self.name}: vivace.optimize, time={time}{', exhaustive' if exhaustive else ''}")
        out = self.folder / f"artifact-{'exhaustive' if exhaustive else 'timed'}"
        result = vv.optimize(
            self.work, self.budget, "latency", time, out,
            fixed_shapes=fixed_shapes, exhaustive=exhaustive, without=without,
        )  # fmt: skip
        record = {
            "time": time, "plan": str(result.plan), "status": result.status.value, "speedup": values(result.speedup),
            "candidates": len(result.candidates), "wall_seconds": result.wall_seconds,
            "quality": result.quality.verdict.value, "compute": result.compute and plain(result.compute.winner),
            "tried": [told(trial) for trial in result.candidates],
        }  # fmt: skip
        return ArmSpec("peers.ours:open_peer", {"folder": str(out)}, None, "vivace", self.effort.device), record

    def try_peer(self, peer: str) -> dict[str, Any]:
        """One peer's numbers, or why it has none: a tool that fails is a finding, not the end of the run."""
        if absent := missing(peer):
            how = "pip install -r benchmarks/requirements.txt"
            return {"outcome": "not installed", "name": title(peer), "reason": f"{', '.join(absent)} missing: {how}"}
        try:
            effort = self.effort
            spec = self.peer_spec(peer)
            timed = self.against_eager(peer, spec, effort.peer_restarts, effort.peer_seconds, PEER_LIMITS)
            if is_unsettled(timed["speedup"]):
                timed = self.against_eager(peer, spec, effort.restarts, effort.seconds, PEER_LIMITS)
            return timed | {"quality": {"verdict": NOT_JUDGED}}
        except VivaceError as error:
            self.say(f"{self.name}: {title(peer)}: {str(error)[:200]}")
            return failed(error) | {"name": title(peer)}

    def peer_spec(self, peer: str) -> ArmSpec:
        """The peer as an arm; what it converts is made once, in a process of its own."""
        module = importlib.import_module(f"peers.{peer}")
        prepared = {"device": self.effort.device, **self.prepared(peer, module)}
        return ArmSpec(f"peers.{peer}:open_peer", prepared, self.work.model, title(peer), self.effort.device)

    def prepared(self, peer: str, module: ModuleType) -> Mapping[str, Any]:
        """What the peer's `prepare` returned, now or before."""
        folder = self.folder / f"peer-{peer}"
        note = folder / "prepared.json"
        if not hasattr(module, "prepare"):
            return {}
        if not note.exists():
            with Worker(folder, PEER_LIMITS) as worker:
                calls = [(inputs,) for inputs, _ in self.work.data[:CALIBRATION_CALLS]]
                arguments = {"peer": peer, "folder": str(folder)}
                note.write_text(
                    json.dumps(worker.open("peers:prepare", arguments, (self.work.model, calls), Phase.CONVERT))
                )
        found: dict[str, Any] = json.loads(note.read_text())
        return found

    def against_eager(
        self, name: str, spec: ArmSpec, restarts: int, seconds: float, limits: Limits = STANDARD
    ) -> dict[str, Any]:
        """An arm's speed-up over eager."""
        self.say(f"{self.name}: {spec.name}")
        comparison = self.compare(self.eager(), spec, name, restarts, seconds, limits=limits)
        return {
            "outcome": "ok", "name": spec.name, "speedup": interval(comparison),
            "verdict": comparison.verdict.value, "restarts": comparison.restarts, "blocks": comparison.blocks,
            "median_seconds": comparison.candidate.median_seconds,
            "eager_median_seconds": comparison.baseline.median_seconds,
            "ratios": comparison.ratios,
        }  # fmt: skip

    def eager(self) -> ArmSpec:
        return ArmSpec("peers.eager:open_peer", {}, self.work.model, "eager", self.effort.device)

    def compare(
        self, baseline: ArmSpec, candidate: ArmSpec, name: str, restarts: int, seconds: float,
        seconds_for_more: float = 0.0, limits: Limits = STANDARD,
    ) -> Comparison:  # fmt: skip
        """Both arms on the timed calls; restarts that disagree are followed by more within `seconds_for_more`."""
        folder = self.folder / f"race-{name}"
        return compare(
            baseline, candidate, self.folder / "timed", folder, rule=self.effort.rule(seconds), restarts=restarts,
            seconds_for_more=seconds_for_more, limits=limits,
        )  # fmt: skip

    def judge(self, name: str, spec: ArmSpec, limits: Limits) -> Quality:
        """Every peer is judged on data that was held out from training, by the gate that judges our plans."""
        eager = self.scores("eager", self.eager(), together=max(1, EAGER_SAMPLES // self.work.inputs[0].shape[0]))
        margin = self.budget.margin(float(eager.mean()))
        return judge_scores(eager, self.scores(name, spec, limits), margin, gate=Gate.STRICT)

    def scores(self, name: str, spec: ArmSpec, limits: Limits = STANDARD, together: int = 1) -> Any:
        """One score a sample for an arm's answers to so many calls `together`, taken in a process of its own, once."""
        file = self.folder / f"outputs-{name}.safetensors"
        answered = [joined(self.judged[start : start + together]) for start in range(0, len(self.judged), together)]
        if not file.exists():
            with Worker(self.folder / f"judge-{name}", limits) as worker:
                arguments = {
                    "program": spec.program, "arguments": dict(spec.arguments), "calls": str(self.folder / "timed"),
                    "device": spec.device,
                }  # fmt: skip
                worker.open("vivace.measure.arm:open_arm", arguments, spec.payload)
                calls = self.write_calls(f"judged-{together}", [inputs for inputs, _ in answered])
                worker.call("outputs", {"calls": str(calls), "to": str(file)}, Phase.VERIFY)
        stored = samples.read_outputs(file)
        metric: Callable[[Tensor, Tensor], Tensor] = self.work.metric  # type: ignore[assignment]
        scored = [metric(stored[i][0], target) for i, (_, target) in enumerate(answered)]
        return torch.cat([torch.as_tensor(score) for score in scored]).double().numpy()


def placed(work: vv.Workload, device: str) -> vv.Workload:
    """The workload with its model and its example on a device; data stay where they are."""
    if device == "cpu":
        return work
    inputs = tuple(one.to(device) for one in work.inputs)
    return dataclasses.replace(work, model=work.model.to(device), inputs=inputs)  # type: ignore[union-attr]


def joined(calls: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """One call that asks what several ask."""
    inputs, targets = zip(*calls, strict=True)
    return torch.cat(inputs), torch.cat(targets)


def failed(error: VivaceError) -> dict[str, Any]:
    """Why an arm has no numbers: it took too long, or it failed."""
    if isinstance(error, WorkerFailure) and error.outcome is Outcome.TIMEOUT:
        return {"outcome": "timeout", "reason": f"took longer than {DEADLINE:g} s"}
    return {"outcome": "failed", "reason": str(error)[:500]}


def contenders(arms: Mapping[str, Mapping[str, Any]], verdict: Callable[[str], str]) -> list[str]:
    """The peers that may be the best: the fastest whose quality held, and the next one where it comes near.

    They are judged from the fastest on (`verdict` names a peer's), and no more of them than it takes to find these. A
    peer outside the budget is shown and does not count; none is a contender where ours failed.
    """
    if arms["vivace"]["outcome"] != "ok":
        return []
    speeds = {name: arm["speedup"]["value"] for name, arm in arms.items() if name in EVERY and arm["outcome"] == "ok"}
    found: list[str] = []
    for name in sorted(speeds, key=lambda name: -speeds[name]):
        if len(found) == 2 or (found and speeds[name] < NEAR * speeds[found[0]]):
            break
        if verdict(name) == QualityVerdict.HELD.value:
            found.append(name)
    return found


def is_unsettled(speedup: Mapping[str, float | None]) -> bool:
    """Whether an interval is too wide to rank by."""
    return speedup["high"] is None or not speedup["low"] or speedup["high"] / speedup["low"] > UNSETTLED


def summary(quality: Quality) -> dict[str, Any]:
    keys = ("samples", "margin", "baseline", "candidate", "drop", "drop_upper")
    return {"verdict": quality.verdict.value} | {key: getattr(quality, key) for key in keys}


def told(trial: Trial) -> dict[str, Any]:
    """A candidate in a line: its plan, what became of it, its speed-up in the race, and when it was tried."""
    speedup = trial.speedup and round(trial.speedup.value, 3)
    seconds = [moment and round(moment, 1) for moment in (trial.started_seconds, trial.ended_seconds)]
    outcome, reason = trial.outcome.value, trial.reason[:160]
    return {"plan": str(trial.plan), "outcome": outcome, "speedup": speedup, "seconds": seconds, "reason": reason}


def plain(reach: Reach) -> dict[str, Any]:
    """How near the winner came to the machine's measured ceilings."""
    return dataclasses.asdict(reach) | {"bound": reach.bound and reach.bound.value}


def interval(comparison: Comparison) -> dict[str, float | None]:
    return values(comparison.speedup)


def values(speedup: Interval) -> dict[str, float | None]:
    """The interval as JSON; null for the bound that too few blocks leave open."""
    return {"value": speedup.value, "low": speedup.low, "high": None if math.isinf(speedup.high) else speedup.high}


def main_thread_only() -> None:
    """This process trains and scores; it must not disturb what is measured elsewhere."""
    torch.set_num_threads(1)
    if str(HERE) not in sys.path:
        sys.path.insert(0, str(HERE))
