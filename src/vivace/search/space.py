"""Which plans there are: settings from each technique's variants, legal combinations, and the neighbours of a plan."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

from vivace.core.errors import UsageError
from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.plan import Plan
from vivace.core.registry import missing_package
from vivace.core.technique import Stage, Technique
from vivace.core.work import Work

LADDER = ("inference-mode", "threads", "channels-last", "inductor")
"""The techniques that plain PyTorch offers to anyone: the rungs of the baseline ladder."""


@dataclasses.dataclass(frozen=True)
class Space:
    """The settings worth trying, by technique, and the facts that plans start from.

    `left_out` says why each technique that offers nothing here was left out; `gentler` has, for a setting that changes
    answers, those of the same technique that change them less and less.
    """

    facts: frozenset[Fact]
    settings: Mapping[str, tuple[Technique, ...]]
    left_out: Mapping[str, str]
    gentler: Mapping[Technique, tuple[Technique, ...]] = dataclasses.field(default_factory=dict)

    def legal(self, techniques: Sequence[Technique]) -> Plan | None:
        """The plan of these techniques, or None when it cannot work."""
        plan = Plan.of(techniques)
        return plan if plan.illegal(self.facts) is None else None

    def of_stage(self, stage: Stage) -> list[Technique]:
        """Every setting of one stage."""
        return [t for settings in self.settings.values() for t in settings if t.stage is stage]

    def seeds(self) -> Iterator[Plan]:
        """Every legal choice of at most two precisions, at most one compiler and at most one target, nothing else."""
        precisions = self.of_stage(Stage.PRECISION)
        choices: list[Iterable[tuple[Technique, ...]]] = [
            itertools.chain.from_iterable(itertools.combinations(precisions, count) for count in (0, 1, 2)),
            [(), *((compiler,) for compiler in self.of_stage(Stage.COMPILE))],
            [(), *((target,) for target in self.of_stage(Stage.TARGET))],
        ]
        for parts in itertools.product(*choices):
            plan = self.legal([technique for part in parts for technique in part])
            if plan is not None and len(plan):
                yield plan

    def neighbours(self, plan: Plan) -> Iterator[Plan]:
        """Every legal plan that adds, removes or resets one technique; one that needs another's fact may bring it."""
        for name, settings in self.settings.items():
            others = [t for t in plan.techniques if t.name() != name]
            added = (changed for setting in settings for changed in self._added(others, setting))
            for changed in (others, *added):
                neighbour = self.legal(changed)
                if neighbour is not None and neighbour != plan and len(neighbour):
                    yield neighbour

    def _added(self, others: list[Technique], setting: Technique) -> Iterator[list[Technique]]:
        """The plan with a setting, and with each other that makes true what the setting lacks."""
        yield [*others, setting]
        lacking, names = setting.needs - self.facts, {t.name() for t in others}
        for makers in self.settings.values():
            yield from ([*others, m, setting] for m in makers if m.gives & lacking and m.name() not in names)

    def milder(self, plan: Plan) -> list[Plan]:
        """The same plan with a gentler and gentler setting of the first of its techniques that has such settings."""
        for technique in plan.techniques:
            if technique in self.gentler:
                rest = [other for other in plan.techniques if other != technique]
                plans = (self.legal([*rest, setting]) for setting in self.gentler[technique])
                return [milder for milder in plans if milder is not None]
        return []

    def recovered(self, plan: Plan) -> list[Plan]:
        """The same plan with a technique that may win back the quality it lost."""
        menders = (setting for settings in self.settings.values() for setting in settings if setting.mends)
        plans = (self.legal([*plan.techniques, mender]) for mender in menders)
        return [recovered for recovered in plans if recovered is not None]

    def everything(self) -> set[Plan]:
        """Every plan that neighbours lead to from the seeds and the milder seeds: the exhaustive space."""
        found = {plan for seed in self.seeds() for plan in (seed, *self.milder(seed))}
        frontier = list(found)
        while frontier:
            for neighbour in self.neighbours(frontier.pop()):
                if neighbour not in found:
                    found.add(neighbour)
                    frontier.append(neighbour)
        return found


def space_of(
    work: Work,
    machine: Machine,
    known: Mapping[str, type[Technique]],
    only: Sequence[str] = (),
    without: Sequence[str] = (),
) -> Space:
    """The space of a job on a machine. `only` and `without` name techniques and have been checked to exist."""
    facts = work.facts | machine.facts()
    reachable = facts.union(*(kind.gives for kind in known.values()))
    settings: dict[str, tuple[Technique, ...]] = {}
    left_out: dict[str, str] = {}
    for name, kind in known.items():
        reason = _why_not(name, kind, reachable, only, without)
        offered = () if reason else tuple(kind.variants(work, machine))
        if offered:
            settings[name] = offered
        else:
            left_out[name] = reason or "offers no setting for this model and machine"
    every = (setting for offered in settings.values() for setting in offered)
    gentler = {setting: steps for setting in every if (steps := tuple(setting.gentler(work)))}
    return Space(facts, settings, left_out, gentler)


def check_usable(space: Space, only: Sequence[str], without: Sequence[str] = ()) -> None:
    """Raise UsageError when what the user allows leaves no plan at all, saying why."""
    is_bound = only or without
    if not is_bound or any(True for _ in space.seeds()) or any(True for _ in space.neighbours(Plan())):
        return
    if not only:
        raise UsageError("--without leaves no plan that could run here; leave fewer techniques out")
    reasons = [f"{name}: {space.left_out[name]}" for name in only if name in space.left_out]
    reasons += [
        f"{plan}: {plan.illegal(space.facts)}"
        for name in only
        for plan in (Plan.of([t]) for t in space.settings.get(name, ())[:1])
    ]
    raise UsageError(
        f"--only {','.join(only)} leaves no plan that could run here ({'; '.join(reasons)}); allow the "
        "technique that is missing, or leave --only out"
    )


def _why_not(
    name: str, kind: type[Technique], reachable: frozenset[Fact], only: Sequence[str], without: Sequence[str]
) -> str | None:
    if name in without:
        return "left out by --without"
    if only and name not in only:
        return "left out by --only"
    missing = missing_package(kind)
    if missing:
        return missing
    for fact in sorted(kind.needs - reachable, key=lambda f: f.name):
        return f"needs {fact.value}"
    return None
