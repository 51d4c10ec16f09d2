"""Steps of two processes predicted from what one computes of them and from small exchanges, beside what they took."""

from __future__ import annotations

import json
import math
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
FORETOLD = (Spread.DATA, Spread.SHARD)
PARTS, FEWEST = (2, 4, 8), 8
"""Of the largest size, up to which laws are fitted that predict what is larger; of at least so many steps."""
SIZES = {
    "exchanges": "exchanges", "exchanged_bytes": "exchanged_bytes", "tensors": "tensors",
    "seconds_of_one_process": "alone_seconds",
}  # fmt: skip
"""The sizes that bound the law, and how a share calls them."""
FAR = 2.0
"""The distance from which on errors are told apart."""
SUMMED = ("exchanged_bytes", "tensors", "seconds_of_one_process")
"""Those of them in which the law goes on beyond what was measured."""


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


def larger() -> dict[str, Any]:
    """Errors on steps larger than any that was fitted, and the factor within which 95% of these predictions were; they
    grow little with the distance.

    On each machine the law is fitted to what has at most a half, a quarter, an eighth of the largest of one size, and
    predicts the rest; the distance is in that size. Not of how often something is exchanged: what shards pay for that
    cannot be told from steps in which little is.
    """
    every = [(file, part, name) for file in (FILE, OLDER) for part in PARTS for name in SUMMED]
    cuts = [(*cut, found) for cut in every if (found := _larger(*cut))]
    entries = [entry for *_, found in cuts for entry in found]
    errors, distances = zip(*entries, strict=True)
    return {
        "steps": len(entries), "farthest": max(distances), "factor95": factor95(errors),
        "far_factor95": factor95([error for error, distance in entries if distance > FAR]),
        "cuts": [
            {"machine": file.stem, "part": part, "size": name, "steps": len(found),
             "farthest": max(far for _, far in found),
             "mean_error": float(np.mean([abs(error) for error, _ in found])),
             "worst_error": max((error for error, _ in found), key=abs)}
            for file, part, name, found in cuts
        ],
    }  # fmt: skip


def _larger(file: Path, part: int, name: str) -> list[tuple[float, float]]:
    """The errors (logarithms) and distances of a machine's steps in copies and shards, the layouts of which users are
    told, beyond a law that saw none of which a size is above this part of the largest; none where it would see few."""
    document, field = measured(file), SIZES[name]
    wires, shares = processes_wires(document), {case: share_of(document, case) for case in document["facts"]}
    sizes = {case: float(getattr(share, field)) for case, share in shares.items()}
    small = [case for case, size in sizes.items() if size <= max(sizes.values()) / part]
    bound = max((sizes[case] for case in small), default=0.0)
    if len(small) < FEWEST or not bound:
        return []
    law = fit_processes([shares[case] for case in small], [_together(document, case)[0] for case in small], wires)
    return [
        (math.log(predicted_step(law, share, wires).value / _together(document, case)[0]), sizes[case] / bound)
        for case, share in shares.items() if sizes[case] > bound and share.spread in FORETOLD
    ]  # fmt: skip


def carried(file: Path = FILE) -> tuple[Law, Wires]:
    """The law of everything that was timed on a machine, and its wires."""
    document = measured(file)
    wires = processes_wires(document)
    shares = [share_of(document, name) for name in document["facts"]]
    return fit_processes(shares, [_together(document, name)[0] for name in document["facts"]], wires), wires


def bounds() -> dict[str, tuple[float, float]]:
    """What was measured, on both machines: a smaller step only adds less, so that each begins at nothing."""
    shares = [share_of(one, name) for one in map(measured, (FILE, OLDER)) for name in one["facts"]]
    found = {name: (0.0, float(max(getattr(share, field) for share in shares))) for name, field in SIZES.items()}
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
