"""Steps of two processes predicted from what one computes of them and from small exchanges, beside what they took."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from predictions.processes_measure import FILE, OLDER, PROCESSES
from vivace.devices.prediction.fitting import factor95
from vivace.devices.prediction.processes import (
    Law,
    Share,
    Spread,
    Wires,
    fit_processes,
    latency_of,
    moved,
    pipeline_seconds,
    predicted_step,
    seconds_of,
    wires_of,
)
from vivace.measure.stats import hodges_lehmann

CLOSE = 0.20
"""The error within which a step counts as predicted."""


def measured(file: Path = FILE) -> dict[str, Any]:
    """All sessions."""
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def tested(file: Path = FILE) -> dict[str, Any]:
    """Each target's step, PREDICTED by a law that was fitted to the chains, and MEASURED."""
    document = measured(file)
    wires = processes_wires(document)
    names = {target: [name for name, facts in document["facts"].items() if facts["is_target"] is target]
             for target in (False, True)}  # fmt: skip
    chains = [share_of(document, name) for name in names[False]]
    law = fit_processes(chains, [_together(document, name)[0] for name in names[False]], wires)
    entries = [_entry(document, name, law, wires) for name in names[True]]
    within = [abs(entry["error"]) <= CLOSE for entry in entries]
    errors = np.abs([entry["error"] for entry in entries])
    return {
        "processes": PROCESSES, "sessions": len(document["sessions"]),
        "rounds": sum(len(one["rounds"]) for one in document["sessions"]), "fitted": len(chains),
        "wires": {field: [getattr(wires, field).latency_seconds, getattr(wires, field).bytes_per_second]
                  for field in ("summing", "gathering", "handing")},
        "factor95": law.factor95, "within": sum(within), "predicted": len(within), "mean": float(errors.mean()),
        "worst": float(errors.max()),
        "held": sum(entry["low"] <= entry["seconds"] <= entry["high"] for entry in entries),
        "entries": entries,
    }  # fmt: skip


def exchanges_of(document: Mapping[str, Any]) -> list[Any]:
    """The bare exchanges of all sessions."""
    return [one for session in document["sessions"] for one in session["exchanges"]]


def elsewhere() -> dict[str, Any]:
    """Errors of all steps on each of the two machines by the law of the other one, moved to the machine's own wires."""
    entries = []
    for own, other in ((FILE, OLDER), (OLDER, FILE)):
        law, wires = carried(own)
        document = measured(other)
        theirs = processes_wires(document)
        found = moved(law.parameters, latency_of(wires), theirs)
        for name in document["facts"]:
            seconds = float(seconds_of([share_of(document, name)], theirs, found)[0])
            entries.append({"case": name, "machine": other.stem, "error": seconds / _together(document, name)[0] - 1})
    errors = np.abs([entry["error"] for entry in entries])
    return {
        "steps": len(entries), "mean": float(errors.mean()), "worst": float(errors.max()),
        "within": int((errors <= CLOSE).sum()), "factor95": factor95(np.log1p([entry["error"] for entry in entries])),
        "entries": entries,
    }  # fmt: skip


def carried(file: Path = FILE) -> tuple[Law, Wires]:
    """The law of everything that was timed on a machine, and its wires."""
    document = measured(file)
    wires = processes_wires(document)
    shares = [share_of(document, name) for name in document["facts"]]
    return fit_processes(shares, [_together(document, name)[0] for name in document["facts"]], wires), wires


def bounds() -> dict[str, tuple[float, float]]:
    """What was measured, on both machines: a smaller step only adds less, so that each begins at nothing."""
    shares = [share_of(one, name) for one in map(measured, (FILE, OLDER)) for name in one["facts"]]
    names = {"exchanges": "exchanges", "exchanged_bytes": "exchanged_bytes", "tensors": "tensors",
             "seconds_of_one_process": "alone_seconds"}  # fmt: skip
    found = {name: (0.0, float(max(getattr(share, field) for share in shares))) for name, field in names.items()}
    return {"processes": (PROCESSES, PROCESSES), **found}


def processes_wires(document: Mapping[str, Any]) -> Wires:
    """What the bare exchanges of all sessions imply."""
    return wires_of(exchanges_of(document))


def share_of(document: Mapping[str, Any], name: str) -> Share:
    """What one process does of a case, in the median of all rounds."""
    facts = document["facts"][name]
    alone = np.median([one[name]["alone"] for one in _rounds(document)], axis=0).tolist()
    if facts["spread"] == Spread.PIPELINE.value:
        first, second, *updates, read = alone
        passing, crowded = pipeline_seconds([first, second], facts["micro"])
        seconds, crowded = read + passing + max(updates), read + crowded + min(updates)
    else:
        (seconds,) = alone
        crowded = seconds
    exchanged = facts["exchanges"], facts["bytes"]
    return Share(Spread(facts["spread"]), PROCESSES, seconds, crowded, *exchanged, facts["tensors"])


def _entry(document: Mapping[str, Any], name: str, law: Law, wires: Wires) -> dict[str, Any]:
    share = share_of(document, name)
    predicted = predicted_step(law, share, wires)
    seconds, low, high = _together(document, name)
    return {
        "case": document["facts"][name]["case"], "spread": share.spread.value, "alone_seconds": share.alone_seconds,
        "predicted": predicted.value, "low": predicted.low, "high": predicted.high, "seconds": seconds,
        "seconds_low": low, "seconds_high": high, "error": predicted.value / seconds - 1,
    }  # fmt: skip


def _together(document: Mapping[str, Any], name: str) -> tuple[float, float, float]:
    """What a step of both processes took, over all rounds, with its 95% interval."""
    found = hodges_lehmann(np.log([one[name]["together"] for one in _rounds(document)]))
    return float(np.exp(found.value)), float(np.exp(found.low)), float(np.exp(found.high))


def _rounds(document: Mapping[str, Any]) -> list[Any]:
    return [one for session in document["sessions"] for one in session["rounds"]]
