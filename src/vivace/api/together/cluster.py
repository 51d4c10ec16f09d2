"""`vivace optimize --cluster`: the trials of a search over a Ray cluster, each node judged on its own hardware."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vivace.api.optimize import optimize
from vivace.api.request import plan_of
from vivace.artifact import save
from vivace.core.errors import EnvironmentFault, MissingExtra, UsageError, VivaceError
from vivace.core.measurement import Interval, Outcome
from vivace.core.quality import Budget, QualityVerdict
from vivace.core.registry import is_installed
from vivace.core.workload import Workload
from vivace.distributed.launch import why_silent
from vivace.distributed.standings import ClusterResult, Node, NodeTrial, priced, standings_of
from vivace.distributed.trial_lists import TrialLists
from vivace.measure import parcel
from vivace.report.progress import Progress, SilentProgress

LOCAL = "local"
TRIALS = 6
LOOK_SECONDS, ANSWER_SECONDS = 0.5, 30.0
TRIAL_TIME = "60s"
FURTHER = frozenset(
    {
        "objective", "only", "without", "gate", "preset", "calls", "native", "fixed_shapes", "keep", "device", "seed",
        "limits",
    }
)  # fmt: skip
"""What of `optimize` a trial on a node may be asked for beside its plan and its time."""


def optimize_on_cluster(
    work: Workload,
    address: str,
    budget: Budget = Budget(),
    *,
    out: str | Path | None = None,
    prices: Mapping[str, float] | None = None,
    trials: int = TRIALS,
    trial_time: str | float = TRIAL_TIME,
    plans: Sequence[Sequence[str | Mapping[str, Any]]] = (),
    progress: Progress | None = None,
    **asked: Any,
) -> ClusterResult:
    """Try plans for a workload on every kind of machine of a Ray cluster, and rank the machines.

    Each node makes its own list of the `trials` most promising plans, as `preview` does; nodes with the same hardware
    share one. A trial is an `optimize` of one plan on one node, which it has for itself: built, judged, and timed
    against the original there. A node that dies loses its trial. `address` is the cluster's ("auto", or HOST:PORT), or
    "local" to start a Ray on this machine for as long as this takes. `prices` are per hour, by a node's name, address
    or resource. `out` receives the fastest artifact. `asked` are further arguments of `optimize` (`FURTHER`).

    Raises MissingExtra without Ray; EnvironmentFault where no cluster answers; UsageError for an argument, a plan, a
    price or a place for the artifact that cannot be.

    >>> found = vv.optimize_on_cluster(work, "auto", prices={"c7i": 0.36})  # doctest: +SKIP
    >>> found.standings[0].cost_per_million_calls  # doctest: +SKIP
    1.2
    """
    progress = progress or SilentProgress()
    unknown = sorted(set(asked) - FURTHER)
    if unknown:
        raise UsageError(
            f"a search over a cluster has no {', '.join(unknown)}; allowed beside its own arguments are "
            f"{', '.join(sorted(FURTHER))}"
        )
    if out is not None:
        save.check_destination(Path(out))
    for plan in plans:
        plan_of(plan)  # what no node knows is told before any is asked
    with _joined(address) as ray, tempfile.TemporaryDirectory(prefix="vivace-") as name:
        payload = ray.put(parcel.packed((work, budget, dict(asked))))
        cluster = _Cluster(ray, payload, trial_time, Path(name), progress=progress)
        nodes = priced(cluster.nodes(), prices or {})
        for node in nodes:
            progress.note(f"{node.name}: {node.processor}, {node.cores} cores")
        lists = {node.kind: [json.dumps(list(plan)) for plan in plans] for node in nodes}
        if not plans:
            progress.stage("plan", f"{len(lists)} kinds of hardware")
            lists = cluster.lists(nodes, trials)
        tried, spread = cluster.run(nodes, lists, progress)
        standings = standings_of(nodes, tried)
        artifact = cluster.keep(standings[0].plan if standings else "", standings[0].kind if standings else "", out)
        untried = tuple(_name_of(plan) for plans in spread.untried().values() for plan in plans)
        lost = tuple(dict.fromkeys((*cluster.lost, *spread.lost)))
        return ClusterResult(work.name, nodes, tried, standings, lost, untried, artifact)


def check_ray() -> None:
    """Raise MissingExtra where there is no Ray."""
    if not is_installed("ray"):
        raise MissingExtra("ray", "cluster", "a search over a cluster")


@contextlib.contextmanager
def _joined(address: str) -> Iterator[Any]:
    """Ray, connected to a cluster; one that was started here ends with it."""
    check_ray()
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    silent = why_silent(address)  # Ray itself tries for minutes
    try:
        if silent:
            raise ConnectionError(silent)
        ray.init(address=address, **quiet, **({"include_dashboard": False} if address == LOCAL else {}))
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise EnvironmentFault(
            f"no Ray cluster answers at {address} ({str(error).splitlines()[0]}); start one with `ray start --head`, "
            f"give its HOST:PORT, or {LOCAL!r} to start one here for this search"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


@dataclasses.dataclass
class _Cluster:
    """What is asked of Ray's nodes. `kept` is where artifacts that came back lie."""

    ray: Any
    payload: Any
    trial_time: str | float
    kept: Path
    artifacts: dict[tuple[str, str], Path] = dataclasses.field(default_factory=dict)
    cores: dict[str, int] = dataclasses.field(default_factory=dict)
    gpus: dict[str, float] = dataclasses.field(default_factory=dict)
    ids: dict[str, str] = dataclasses.field(default_factory=dict)
    lost: list[str] = dataclasses.field(default_factory=list)
    progress: Progress = dataclasses.field(default_factory=SilentProgress)

    def nodes(self) -> list[Node]:
        """The nodes that are alive and have a core to give, as each describes itself."""
        found: list[Node] = []
        asked: dict[str, Any] = {}
        told = {one["NodeName"] + "@" + one["NodeID"][:6]: one for one in self.ray.nodes() if one["Alive"]}
        for name, one in told.items():
            cores = int(one["Resources"].get("CPU", 0))
            if cores < 1:
                continue
            self.cores[name], self.ids[name] = cores, one["NodeID"]
            self.gpus[name] = one["Resources"].get("GPU", 0)
            asked[name] = self._on(name, _machine).remote(cores)
        for name, future in asked.items():
            machine = self._answer(name, future)
            if machine is None:
                continue
            own = [label for label in told[name]["Resources"] if not label.startswith(("node:", "CPU", "GPU", "memory",
                                                                                       "object_store"))]  # fmt: skip
            labels = (name, told[name]["NodeName"], told[name]["NodeManagerAddress"], *own)
            found.append(Node(name, machine["kind"], machine["processor"], machine["cores"], labels))
        if not found:
            raise EnvironmentFault("the Ray cluster has no node with a core to give; add one with `ray start`")
        return found

    def lists(self, nodes: Sequence[Node], trials: int) -> dict[str, list[str]]:
        """For each kind of hardware, the plans that one of its nodes would try first."""
        first: dict[str, Node] = {}
        for node in nodes:
            first.setdefault(node.kind, node)
        asked = {node.name: self._listing(node, trials) for node in first.values()}
        found: dict[str, list[str] | None] = {}
        for node in nodes:
            if found.get(node.kind) is None:  # nobody of its kind has answered yet
                future = asked[node.name] if node.name in asked else self._listing(node, trials)
                found[node.kind] = self._answer(node.name, future)
        return {kind: plans or [] for kind, plans in found.items()}

    def _listing(self, node: Node, trials: int) -> Any:
        return self._on(node.name, _plans).remote(self.cores[node.name], self.payload, trials)

    def _answer(self, name: str, future: Any) -> Any:
        """What a node answers; None where it has died meanwhile, which is remembered. Raises what it raised."""
        from ray.exceptions import RayError, RayTaskError

        try:
            if not self.ray.wait([future], timeout=ANSWER_SECONDS)[0]:
                told = "other work may have its cores, of which a trial takes all"
                self.progress.note(f"{name} has not answered within {ANSWER_SECONDS:g} s, and is waited for: {told}")
            return self.ray.get(future)
        except RayTaskError as error:
            cause = getattr(error, "cause", None)
            raise (cause if isinstance(cause, VivaceError) else error) from None
        except RayError:
            self.lost.append(name)
            return None

    def run(
        self, nodes: Sequence[Node], lists: Mapping[str, Sequence[str]], progress: Progress
    ) -> tuple[tuple[NodeTrial, ...], TrialLists]:
        """Try everything, each node one plan at a time."""
        spread = TrialLists({node.name: node.kind for node in nodes}, lists)
        kinds = {node.name: node.kind for node in nodes}
        running: dict[Any, tuple[str, str]] = {}
        found: list[NodeTrial] = []

        def give(node: str) -> None:
            plan = spread.take(node)
            if plan is not None:
                asked = self._on(node, _trial).remote(self.cores[node], self.payload, plan, self.trial_time)
                running[asked] = (node, plan)

        for one in nodes:
            if one.name in self.lost:
                spread.lose(one.name)
            give(one.name)
        while running:
            progress.stage("try", f"{len(found)} of {sum(map(len, lists.values()))} trials, {len(running)} running")
            for future in self._over(running):
                node, plan = running.pop(future)
                trial = self._outcome(future, node, kinds[node], plan, spread)
                found.append(trial)
                progress.note(f"{node}: {trial.plan}: {trial.speedup or trial.outcome.value} {trial.reason}".strip())
                give(node)
        return tuple(found), spread

    def _over(self, running: Mapping[Any, tuple[str, str]]) -> list[Any]:
        """The trials that have ended, also by the end of their node."""
        done, _ = self.ray.wait(list(running), num_returns=1, timeout=LOOK_SECONDS)
        alive = {one["NodeID"] for one in self.ray.nodes() if one["Alive"]}
        return list(dict.fromkeys([*done, *(one for one, (node, _) in running.items() if self.ids[node] not in alive)]))

    def _outcome(self, future: Any, node: str, kind: str, plan: str, spread: TrialLists) -> NodeTrial:
        from ray.exceptions import RayError, RayTaskError

        name = _name_of(plan)
        try:
            told = self.ray.get(future, timeout=5.0)
        except RayTaskError as error:
            reason = str(error).strip().splitlines()[-1]
            return NodeTrial(node, kind, name, Outcome.CRASHED, reason)
        except RayError as error:
            if self._is_there(node):
                reason = f"its process died: {str(error).strip().splitlines()[0]}"
                return NodeTrial(node, kind, name, Outcome.CRASHED, reason)
            spread.lose(node)
            return NodeTrial(node, kind, name, Outcome.INFRA_ERROR, "its node died, and the trial with it")
        speedup = None if told["speedup"] is None else Interval(*told["speedup"])
        quality = None if told["quality"] is None else QualityVerdict(told["quality"])
        trial = NodeTrial(
            node, kind, told["plan"], Outcome(told["outcome"]), told["reason"], speedup, told["seconds"],
            told["original_seconds"], quality,
        )  # fmt: skip
        if trial.counts:
            self.artifacts[kind, trial.plan] = _written(told["files"], self.kept / str(len(self.artifacts)))
        return trial

    def _is_there(self, node: str) -> bool:
        """Whether a node still answers, of which a process has died."""
        from ray.exceptions import RayError

        try:
            return bool(self.ray.get(self._on(node, _here).remote(), timeout=ANSWER_SECONDS))
        except RayError:
            return False

    def keep(self, plan: str, kind: str, out: str | Path | None) -> Path | None:
        """The winner's artifact at its place; None where the original won, or no place was given."""
        found = self.artifacts.get((kind, plan))
        if found is None or out is None:
            return None
        destination = Path(out)
        staged = destination.absolute().with_name(f".{destination.name}.staged-{os.getpid()}")  # on the same disk
        try:
            with save.disk_errors(destination):
                shutil.copytree(found, staged)
            save.publish(staged, destination)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        return destination

    def _on(self, node: str, function: Any) -> Any:
        """A function as a task that has a node for itself and is not tried again elsewhere."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        pinned = NodeAffinitySchedulingStrategy(node_id=self.ids[node], soft=False)
        whole: dict[str, Any] = {"num_cpus": self.cores[node], "num_gpus": self.gpus[node]}
        return self.ray.remote(**whole, max_retries=0, scheduling_strategy=pinned)(function)


def _name_of(plan: str) -> str:
    """A plan's techniques, for people."""
    return " + ".join(one if isinstance(one, str) else str(one["technique"]) for one in json.loads(plan))


def _here() -> bool:
    """What a node answers that is there."""
    return True


def _machine(cores: int) -> dict[str, Any]:
    """What a node is, with the cores that Ray may use of it."""
    _keep_to(cores)
    from vivace.devices.machine import detect

    found = detect()
    return {"kind": found.fingerprint, "processor": found.processor, "cores": found.cores_allowed}


def _plans(cores: int, payload: bytes, trials: int) -> list[str]:
    """The plans that a search on this node would try first, as JSON."""
    _keep_to(cores)
    from vivace.api.preview import preview

    told: Any = parcel.unpacked(payload)
    work, _, asked = told
    known = ("objective", "calls", "only", "without", "native", "fixed_shapes", "device")
    found = preview(work, time="10m", **{name: value for name, value in asked.items() if name in known})
    return [json.dumps(one.plan.to_json()) for one in found.plans if len(one.plan)][:trials]


def _trial(cores: int, payload: bytes, plan: str, time: str | float) -> dict[str, Any]:
    """One plan on this node against the original: how it ended, its times, and its artifact's files."""
    _keep_to(cores)
    told: Any = parcel.unpacked(payload)
    work, budget, asked = told
    with tempfile.TemporaryDirectory(prefix="vivace-") as name:
        out = Path(name) / "artifact"
        result = optimize(work, budget, plan=json.loads(plan), time=time, out=out, **asked)
        tried = next((one for one in reversed(result.candidates) if len(one.plan)), None)
        is_best = bool(len(result.plan))
        files = {str(file.relative_to(out)): file.read_bytes() for file in sorted(out.rglob("*")) if file.is_file()}
        return {
            "plan": str(result.plan) if is_best else str(tried.plan) if tried else "original",
            "outcome": Outcome.OK.value if is_best else tried.outcome.value if tried else Outcome.NOT_FASTER.value,
            "reason": "" if is_best or tried is None else tried.reason or "it was not confirmed to be faster",
            "speedup": dataclasses.astuple(result.speedup) if is_best else None,
            "seconds": result.comparison.candidate.median_seconds if is_best else None,
            "original_seconds": result.comparison.baseline.median_seconds,
            "quality": result.quality.verdict.value if is_best else None,
            "files": files if is_best else {},
        }


def _keep_to(cores: int) -> None:
    """Use no more cores than Ray says that the node has: what is detected and timed follows."""
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, allowed[: max(1, cores)])
    os.environ.pop("OMP_NUM_THREADS", None)  # Ray sets it to the task's cores; techniques choose their own


def _written(files: Mapping[str, bytes], folder: Path) -> Path:
    """Files that came back, as a folder."""
    for name, content in files.items():
        target = folder / name
        if folder.resolve() not in target.resolve().parents:
            raise EnvironmentFault(f"a node sent the file {name}, which would lie outside of its artifact")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return folder
