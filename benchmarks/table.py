"""Turns the benchmark's result files into the Markdown table of the README, with its conditions."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from peers import FAMILIES

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
OLDER = "avx2"
"""The folder, within that of the results, of those on a processor with AVX2 and no AVX-512."""
MARKED = re.compile(r"(<!-- results: begin [^>]*-->\n).*?(<!-- results: end -->)", re.DOTALL)
MARKED_OLDER = re.compile(r"(<!-- older processor: begin [^>]*-->\n).*?(<!-- older processor: end -->)", re.DOTALL)
HELD, NOT_JUDGED = "HELD", "NOT JUDGED"


def read_results(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """One document a workload, in the order of the benchmark."""
    return [json.loads(file.read_text()) for file in sorted(folder.glob("workload-*.json"))]


def geometric_mean(values: Sequence[float]) -> float:
    """exp(mean(ln x)).

    >>> geometric_mean([0.5, 2.0])
    1.0
    """
    return math.exp(sum(map(math.log, values)) / len(values))


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """The rows, what they come to, and under which conditions they were taken."""
    return _joined(rows(results), closing(results), legend(results))


def rows(results: Sequence[Mapping[str, Any]]) -> str:
    """Speed-ups over eager PyTorch as given: ours, each tool's in its best setting, and ours over the best of them."""
    tools = {tool: settings for tool, settings in FAMILIES.items() if _was_run(settings, results)}
    header = ["workload", "Vivace", *tools, "share of ceiling", "Vivace / best peer"]
    found = [
        [result["workload"].replace("_", "-"), *_cells(result, tools), _share(result), _ratio(result)]
        for result in results
    ]
    lines = _without_empty([header, *found])
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def closing(results: Sequence[Mapping[str, Any]]) -> str:
    """The geometric mean and the worst of ours over the best peer; nothing where there is none."""
    ratios = {r["workload"]: r["ours_over_best_peer"]["value"] for r in results if r["ours_over_best_peer"]}
    if not ratios:
        return ""
    worst, mean = min(ratios, key=lambda name: ratios[name]), geometric_mean([*ratios.values()])
    return (
        f"Geometric mean of Vivace / best peer over {len(ratios)} workloads: **{mean:.2f}**; "
        f"worst: **{ratios[worst]:.2f}** ({worst.replace('_', '-')})."
    )


def _was_run(settings: Mapping[str, str], results: Sequence[Mapping[str, Any]]) -> bool:
    """Whether any of a tool's settings was tried on any workload."""
    return any(peer in result["arms"] for result in results for peer in settings)


def _cells(result: Mapping[str, Any], tools: Mapping[str, Mapping[str, str]]) -> list[str]:
    arms = result["arms"]
    return [_ours(arms["vivace"]), *(_family(settings, arms) for settings in tools.values())]


def _ours(arm: Mapping[str, Any]) -> str:
    if arm["outcome"] != "ok":
        return arm["outcome"]
    shown = f"{arm['speedup']['value']:.2f} {_bounds(arm['speedup'])}"
    return shown if arm["quality"]["verdict"] == HELD else f"({shown}) {arm['quality']['verdict']}"


def _family(settings: Mapping[str, str], arms: Mapping[str, Any]) -> str:
    """The fastest setting whose quality held, or was not judged for it is slower than the best tool (with a dagger);
    else the fastest one in brackets; else why there is none."""
    timed = {peer: arms[peer] for peer in settings if arms.get(peer, {}).get("outcome") == "ok"}
    if not timed:
        reasons = {_reason(arms.get(peer)): None for peer in settings}
        return ", ".join(reasons)
    held = {peer: arm for peer, arm in timed.items() if arm["quality"]["verdict"] in (HELD, NOT_JUDGED)}
    able = held or timed
    best = max(able, key=lambda peer: able[peer]["speedup"]["value"])
    dagger = "†" if able[best]["quality"]["verdict"] == NOT_JUDGED else ""
    shown = f"{able[best]['speedup']['value']:.2f}{dagger}"
    label = f" ({settings[best]})" if len(settings) > 1 else ""
    return f"{shown}{label}" if held else f"({shown}) {able[best]['quality']['verdict']}{label}"


def _reason(arm: Mapping[str, Any] | None) -> str:
    if arm is None:
        return "not run"
    return arm["reason"] if arm["outcome"] == "timeout" else arm["outcome"]


def _share(result: Mapping[str, Any]) -> str:
    """The winner's share of the measured ceiling of its precision; nothing where it was not measured."""
    compute = (result.get("optimize") or {}).get("compute") or {}
    return f"{compute['share']:.0%} {compute['precision']}" if compute.get("share") is not None else ""


def _without_empty(lines: Sequence[Sequence[str]]) -> list[list[str]]:
    """The rows less each column that has a header and nothing else."""
    kept = [i for i in range(len(lines[0])) if any(line[i] for line in lines[1:]) or len(lines) == 1]
    return [[line[i] for i in kept] for line in lines]


def _ratio(result: Mapping[str, Any]) -> str:
    ratio = result["ours_over_best_peer"]
    return f"**{ratio['value']:.2f}** {_bounds(ratio)}" if ratio else "-"


def _bounds(ratio: Mapping[str, Any]) -> str:
    return "[too few blocks]" if ratio["high"] is None else f"[{ratio['low']:.2f}, {ratio['high']:.2f}]"


def legend(results: Sequence[Mapping[str, Any]]) -> str:
    """What the numbers are and under which conditions they were taken."""
    if not results:
        return "No results yet; run `make bench`."
    conditions, effort = results[0]["machine"], results[0]["conditions"]["effort"]
    efforts = [result["conditions"]["effort"] for result in results]
    pairs = sorted({one.get("peer_restarts", one["restarts"]) for one in efforts})
    return (
        f"MEASURED: times faster than eager PyTorch as given, ours over {effort['restarts']} pairs of fresh processes "
        f"and the tools' over {' or '.join(map(str, pairs))}; the last column is ours against the "
        f"fastest tools directly, over {effort['restarts']} pairs; 95% intervals. Each tool is shown in its fastest "
        "setting whose quality held; all settings and their intervals are in `benchmarks/results`. In round brackets: "
        "outside the budget of 1 point at 95% confidence, so not counted as the best peer. †: slower than the best "
        "tool, so its quality was not judged. Share of ceiling: the least "
        "time that the measured ceilings of this machine allow the counted work, over ours. "
        f'`vivace.optimize(time="{effort["time"]}")`. '
        f"{conditions['processor']}, {conditions['cores']} cores; {conditions['versions']}; {results[0]['date']}. "
        "Command: `python benchmarks/inference.py`."
    )


def write(pages: Sequence[Path] = (ROOT / "README.md", ROOT / "README.zh.md"), folder: Path = RESULTS) -> str:
    """Put the tables between their marks on each page and beside their results; return that of this folder."""
    text, older = table(read_results(folder)), read_results(folder / OLDER)
    (folder / "table.md").write_text(text + "\n")
    if older:
        (folder / OLDER / "table.md").write_text(table(older) + "\n")
    for page in pages:
        there = _put(MARKED, text, page.read_text())
        page.write_text(_put(MARKED_OLDER, _joined(rows(older), closing(older)), there))
    return text


def _put(marked: re.Pattern[str], text: str, page: str) -> str:
    return marked.sub(lambda marks: marks[1] + text + "\n" + marks[2], page)


def _joined(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)
