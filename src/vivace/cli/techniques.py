"""`vivace techniques`: the catalogue by family, each technique with its status here and the reason."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from types import MappingProxyType

from vivace.cli.importing import broken_packages
from vivace.cli.options import Json, Quiet
from vivace.cli.output import document_only, emit_json, out_console, progress_shown
from vivace.core.errors import install_line
from vivace.core.facts import OF_THE_JOB, OF_THE_MACHINE, Fact
from vivace.core.machine import Machine
from vivace.core.registry import is_installed, missing_package
from vivace.core.technique import Family, Technique

MADE_BY_TECHNIQUES = frozenset({Fact.ON_CUDA, Fact.CHANNELS_LAST, Fact.PRUNED})


@dataclasses.dataclass(frozen=True)
class Entry:
    """One technique of the catalogue, and whether it can be used on this machine. `reason` is empty when it can."""

    name: str
    family: str
    stage: str
    effect: str
    available: bool
    reason: str
    asks_for: tuple[str, ...]
    summary: str
    source: str


def techniques(as_json: Json = False, quiet: Quiet = False) -> None:
    """List every technique by family, with its status on this machine and the reason.

    Optional packages that are there are imported to see whether they work, which takes some seconds.

    Examples:

      vivace techniques

      vivace techniques --json
    """
    with document_only(as_json), progress_shown(quiet) as progress:
        from vivace.core.registry import techniques as known
        from vivace.devices.machine import detect

        progress.stage("importing", "each optional package that is there, to see whether it works")
        kinds = known()
        entries = catalogue(kinds, detect(), broken_packages(packages_here(kinds)))
    if as_json:
        emit_json({"schema_version": 1, "techniques": [dataclasses.asdict(entry) for entry in entries]})
    else:
        _print(entries)


def packages_here(known: Mapping[str, type[Technique]]) -> list[str]:
    """The optional packages of these techniques that are there."""
    return [package for kind in known.values() for package in kind.packages if is_installed(package)]


def catalogue(
    known: Mapping[str, type[Technique]], machine: Machine, broken: Mapping[str, str] = MappingProxyType({})
) -> tuple[Entry, ...]:
    """Every technique with its status: what the machine, the packages and the other techniques make possible.

    `broken` has the packages that are there and cannot be imported, with the reason.
    """
    lacks = {name: missing_package(kind) or _broken_package(kind, broken) for name, kind in known.items()}
    reachable = _reachable({name: kind for name, kind in known.items() if not lacks[name]}, machine)
    return tuple(_entry(kind, reachable, lacks[name]) for name, kind in known.items())


def _broken_package(kind: type[Technique], broken: Mapping[str, str]) -> str:
    """What cannot be imported of the packages that a technique needs; empty when all can."""
    return next(
        (
            f"the package {name} is there but cannot be imported ({broken[name]}); {install_line(kind.extra)}"
            for name in kind.packages
            if name in broken
        ),
        "",
    )


def _reachable(installed: Mapping[str, type[Technique]], machine: Machine) -> frozenset[Fact]:
    """What can become true here for some model and some job."""
    facts = frozenset(Fact) - OF_THE_MACHINE - MADE_BY_TECHNIQUES | machine.facts()
    for _ in installed:
        facts = facts.union(*(kind.gives for kind in installed.values() if kind.needs <= facts))
    return facts


def _entry(kind: type[Technique], reachable: frozenset[Fact], lacks: str) -> Entry:
    lacking = sorted(kind.needs - reachable, key=lambda fact: fact.name)
    reason = f"needs {lacking[0].value}" if lacking else lacks
    return Entry(
        name=kind.name(),
        family=kind.family.value,
        stage=kind.stage.name.lower(),
        effect=kind.effect.value,
        available=not reason,
        reason=reason,
        asks_for=tuple(fact.value for fact in sorted(kind.needs & OF_THE_JOB, key=lambda fact: fact.name)),
        summary=(inspect.getdoc(kind) or "").partition("\n")[0],
        source=kind.source,
    )


def _print(entries: tuple[Entry, ...]) -> None:
    from vivace.report.machine import technique_table
    from vivace.report.terminal import print_block

    for family in Family:
        rows = [(entry.name, entry.stage, _status(entry)) for entry in entries if entry.family == family.value]
        if rows:
            print_block(out_console(), technique_table(family.value, rows))


def _status(entry: Entry) -> str:
    if not entry.available:
        return f"unavailable: {entry.reason}"
    return "available" + (f", given {' and '.join(entry.asks_for)}" if entry.asks_for else "")
