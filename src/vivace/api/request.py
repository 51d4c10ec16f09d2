"""What the caller asked for, checked: names, numbers, the device, the destination and the run's folder."""

from __future__ import annotations

import atexit
import dataclasses
import fcntl
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vivace.artifact import save
from vivace.core import registry
from vivace.core.errors import EnvironmentFault, UsageError, unknown_name
from vivace.core.facts import Fact
from vivace.core.machine import JaxPlatform, Machine, Tpu
from vivace.core.plan import Plan, read_plan
from vivace.core.quality import Budget, Gate
from vivace.core.technique import Technique
from vivace.core.workload import Objective, Preset, Workload
from vivace.devices import ceiling_store
from vivace.devices.machine import detect
from vivace.measure.process import Limits
from vivace.report.duration import parse_duration
from vivace.search.caches import CACHES
from vivace.search.journal import read_journal, run_path
from vivace.search.options import Options
from vivace.search.space import Space

DEVICES = ("cpu", "cuda", "tpu", "auto")
SHORTEST_SECONDS = 10.0


def options_of(
    work: Workload,
    *,
    budget: Budget = Budget(),
    objective: str = "latency",
    time: str | float | None = None,
    preset: str = "default",
    calls: int | None = None,
    only: Sequence[str] = (),
    without: Sequence[str] = (),
    gate: str = "strict",
    extra: Mapping[str, Sequence[type[Technique]]] | None = None,
    plan: Plan | Sequence[str | Mapping[str, Any]] | None = None,
    exhaustive: bool = False,
    seed: int = 0,
    limits: Limits = Limits(),
) -> Options:
    """The rules of a search. Raises UsageError for what is not allowed, with what is."""
    if not isinstance(work, Workload):
        raise UsageError(f"work is a {type(work).__name__}; allowed is a vivace.Workload(model, inputs=...)")
    if not isinstance(budget, Budget):
        raise UsageError(f"budget is {budget!r}; allowed is a vivace.Budget, such as Budget(drop=0.01)")
    extra = extra or {}
    known = {**registry.techniques(), **{kind.name(): kind for kinds in extra.values() for kind in kinds}}
    for name in (*only, *without):
        if name not in known:
            raise unknown_name("technique", name, known)
    asked = None if plan is None else plan_of(plan, known)
    refuse_contradictions(asked, only, without)
    chosen = choice(Gate, "gate", gate)
    aim = choice(Objective, "objective", objective)
    thorough = choice(Preset, "preset", preset)
    return Options(
        budget=budget,
        gate=chosen,
        objective=aim,
        seconds=thorough.seconds if time is None else _seconds(time),
        metric=None if chosen is Gate.FIDELITY else work.metric,
        known=known,
        only=tuple(only),
        without=tuple(without),
        extra=tuple(extra),
        plan=asked,
        exhaustive=exhaustive,
        limits=limits,
        seed=seed,
        finalists=thorough.finalists,
        restarts=thorough.restarts,
        calls=_calls(calls, aim),
    )


def plan_of(plan: Plan | Sequence[str | Mapping[str, Any]], known: Mapping[str, type[Technique]] | None = None) -> Plan:
    """A plan as a user names it: itself, the names of its techniques, or what results.json holds.

    What is not set is as this machine asks for it, else the technique's default. Raises UsageError.
    """
    if isinstance(plan, Plan):
        return plan
    known = registry.techniques() if known is None else known
    if isinstance(plan, str | Mapping) or not isinstance(plan, Sequence):
        raise _unreadable_plan(f"it is a {type(plan).__name__}")
    try:
        return Plan.of(read_plan([_step(entry, known) for entry in plan], known))
    except TypeError as error:
        raise _unreadable_plan(str(error)) from None


def refuse_contradictions(plan: Plan | None, only: Sequence[str], without: Sequence[str]) -> None:
    """Raise UsageError for a technique that one option asks for and another one leaves out."""
    for name in only:
        if name in without:
            raise UsageError(f"{name} stands under only (--only) and under without (--without); leave one of them out")
    for name in (technique.name() for technique in plan or ()):
        if name in without:
            raise UsageError(
                f"plan (--plan) asks for {name}, which without (--without) leaves out; take it from one of them"
            )
        if only and name not in only:
            raise UsageError(
                f"plan (--plan) asks for {name}, and only (--only) allows {', '.join(only)} alone; add {name} to it or "
                "leave it out"
            )


def _step(entry: object, known: Mapping[str, type[Technique]]) -> Mapping[str, Any]:
    """What `read_plan` reads of one technique, from its name or with some settings."""
    match entry:
        case str() as name:
            settings: Any = {}
        case {"technique": str() as name, **rest} if rest.keys() <= {"settings"}:
            settings = rest.get("settings", {})
        case _:
            raise _unreadable_plan(f"a step is {entry!r}")
    if name not in known:
        raise unknown_name("technique", name, known)
    if not isinstance(settings, Mapping):
        raise _unreadable_plan(f"the settings of {name} are {settings!r}")
    fields = {field.name for field in dataclasses.fields(known[name])}  # type: ignore[arg-type]
    for setting in settings:
        if setting not in fields:
            raise unknown_name(f"setting of {name}", str(setting), fields)
    settings = known[name].here(detect()) | {**settings}
    missing = [field for field in _needed(known[name]) if field not in settings]
    if missing:
        raise UsageError(
            f"plan (--plan) names {name} without its setting {' and '.join(missing)}, which has no default; give "
            f'{{"technique": "{name}", "settings": {{"{missing[0]}": ...}}}} in the place of the name'
        )
    return {"technique": name, "settings": settings}


def _needed(kind: type[Technique]) -> list[str]:
    """The settings of a technique that have no default."""
    none = dataclasses.MISSING
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    return [field.name for field in fields if field.default is none and field.default_factory is none]


def _unreadable_plan(reason: str) -> UsageError:
    return UsageError(
        f"plan (--plan) cannot be read: {reason}; allowed is a list of names, or of "
        '{"technique": name, "settings": {...}} as results.json holds it'
    )


def _seconds(time: str | float) -> float:
    seconds = parse_duration(time)
    if not seconds >= SHORTEST_SECONDS:
        raise UsageError(
            f"time is {time}; allowed are {SHORTEST_SECONDS:g} seconds or more, since even the original "
            "takes that long to be measured"
        )
    return seconds


def _calls(calls: int | None, objective: Objective) -> int | None:
    if calls is None:
        return None
    if isinstance(calls, bool) or not isinstance(calls, int) or calls < 1:
        raise UsageError(f"calls (--calls) is {calls!r}; allowed is a whole number of calls, 1 or more")
    if objective not in (Objective.LATENCY, Objective.THROUGHPUT):
        raise UsageError(
            f"calls (--calls) chooses by the total time of {calls} calls, but the objective is {objective.value}; "
            "leave one of them out, or take the objective latency or throughput"
        )
    return calls


def choice(kind: Any, label: str, value: Any) -> Any:
    """The member of an enumeration that a user names by its value. Raises UsageError with what is allowed."""
    value = getattr(value, "value", value)
    allowed = [member.value for member in kind]
    if value not in allowed:
        raise unknown_name(label, str(value), allowed)
    return kind(value)


def check_plan(options: Options, space: Space) -> None:
    """Raise UsageError when the one plan that was asked for cannot work here, with the reason."""
    reason = options.plan.illegal(space.facts) if options.plan is not None else None
    if reason:
        raise UsageError(f"the plan {options.plan} cannot work here: {reason}")


def names_native(options: Options) -> bool:
    """Naming a technique of native code under `only` is the permission to use it."""
    return any(Fact.NATIVE_ALLOWED in options.known[name].needs for name in options.only)


def machine_of(device: str) -> Machine:
    """The machine at hand, with the ceilings that `vivace doctor` measured if it ran here.

    Raises for a device that is unknown, or that was asked for and is not here.
    """
    if device not in DEVICES:
        raise unknown_name("device", device, DEVICES)
    machine = detect()
    if device == "cuda" and not machine.gpus:
        raise EnvironmentFault(
            "device (--device) is cuda, but PyTorch sees no CUDA device here; use cpu, or install a CUDA build of "
            "PyTorch and check `vivace doctor`"
        )
    return dataclasses.replace(machine, ceilings=ceiling_store.kept(machine))


def offered(machine: Machine, device: str, platform: JaxPlatform | None = None) -> Machine:
    """What plans may use of the machine: no GPU when the CPU or a TPU was asked for, and the devices of the platform
    that JAX was found to compute on in place of a TPU that it was not asked for."""
    tpus = () if platform is None else tuple(map(Tpu, platform.kinds))
    return dataclasses.replace(machine, tpus=tpus, gpus=() if device in ("cpu", "tpu") else machine.gpus)


def destination_of(out: str | Path | None) -> Path:
    if out is not None:
        return Path(out)
    folder = Path(tempfile.mkdtemp(prefix="vivace-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder / "artifact"


@contextmanager
def run_folder(destination: Path, resume: bool) -> Iterator[Path]:
    """Where a run keeps its journal and programs, beside the artifact; kept when the run is stopped, gone when done.

    Only one run at a time may use it. Raises EnvironmentFault when another does.
    """
    folder = run_path(destination)
    with save.disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = folder.with_name(f"{folder.name}.lock").open("a")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EnvironmentFault(
                f"another search with the same out (--out), {destination}, is running; wait for it to end, or give a "
                "different one"
            ) from None
        with save.disk_errors(folder):
            if not resume:
                shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(exist_ok=True)
            for kind in CACHES.values():  # compiled code is made again: the folder may be somebody else's
                shutil.rmtree(folder / kind, ignore_errors=True)
        try:
            yield folder
        except BaseException:
            if not any(record["kind"] == "trial" for record in read_journal(folder / "journal.jsonl")):
                _remove(folder)
            raise
        _remove(folder)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.with_name(f"{folder.name}.lock").unlink(missing_ok=True)
    if folder.parent.is_dir() and not any(folder.parent.iterdir()):
        folder.parent.rmdir()
