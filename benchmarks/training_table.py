"""Turns the results of the training benchmark into the Markdown table of the README, with its conditions."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
MARKED = re.compile(r"(<!-- training results: begin [^>]*-->\n).*?(<!-- training results: end -->)", re.DOTALL)
ORDER = ("mnist", "photos", "gpt")
"""Those of the README; others, such as those for cards, are read one by one."""
HEADER = (
    "training", "arm", "s an epoch", "compile and prepare, s", "s to the target", "final score", "peak memory",
    "Vivace is faster: epoch", "5 epochs", "20 epochs", "to the target",
)  # fmt: skip


def read_results(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """One document a workload, in the order of the benchmark."""
    files = [folder / f"training-{name}.json" for name in ORDER]
    return [json.loads(file.read_text()) for file in files if file.is_file()]


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Every arm of every workload, ours first; ratios are theirs over ours, so above 1 ours is faster."""
    if not results:
        return "No results yet; run `python benchmarks/training.py`."
    rows = [HEADER, ["---"] * len(HEADER)]
    for result in results:
        arms = result["arms"]
        for arm in sorted(arms, key=lambda name: name != "vivace"):
            rows.append([result["workload"], arm, *_cells(arms[arm], result["ours_over"].get(arm, {}))])
    body = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return "\n\n".join([body, *(_proof(result) for result in results), legend(results)])


def _cells(arm: Mapping[str, Any], over: Mapping[str, Any]) -> list[str]:
    if "left_out" in arm:
        return [f"left out: {arm['left_out'][:60]}", *[""] * (len(HEADER) - 3)]
    means = arm["means"]
    keys = ("epoch_seconds", "total_5_seconds", "total_20_seconds", "to_target_seconds")
    return [
        _figure(means["epoch_seconds"]), _figure(means["compile_seconds"]), _figure(means["to_target_seconds"]),
        _figure(means["final_score"]), f"{max(arm['times']['peak_bytes']) / 1e6:.0f} MB",
        *(_ratio(over.get(key)) for key in keys),
    ]  # fmt: skip


def _figure(found: Mapping[str, float] | None) -> str:
    if found is None:
        return "-"
    shown = f"{found['value']:.3g}"
    return f"{shown} ± {found['high'] - found['value']:.2g}" if "high" in found else shown


def _ratio(found: Mapping[str, float] | None) -> str:
    if not found:
        return ""
    return f"**{found['value']:.2f}**" + (f" [{found['low']:.2f}, {found['high']:.2f}]" if "low" in found else "")


def _proof(result: Mapping[str, Any]) -> str:
    """The plan of a workload, what proves it, and where the rest of the time goes."""
    chosen, share = result["chosen"], result["share_of_ceiling"]
    parity = chosen.get("parity") or {}
    runs = result["arms"]["vivace"].get("runs", [])
    held = sum(1 for run in runs if (run.get("parity") or {}).get("verdict") == "HELD")
    curves = "".join(f", {name} {parity[name]['verdict']}" for name in ("losses", "scores") if name in parity)
    reached = f"; {share:.0%} of the measured ceiling after compilation" if share is not None else ""
    narrow = result.get("share_of_narrow_ceiling")
    reached += f" ({narrow:.0%} of that in bfloat16, which the plan's products are in)" if narrow is not None else ""
    return (
        f"{result['workload']}: `{chosen['plan_name']}`, chosen in {chosen['search_seconds']:.0f} s; gradients HELD in "
        f"{held} of {len(runs)} runs{curves}; {result['flops_an_epoch'] / 1e9:.3g} GFLOP an epoch{reached}."
    )


def legend(results: Sequence[Mapping[str, Any]]) -> str:
    """What the numbers are and under which conditions they were taken."""
    conditions, seeds = results[0]["machine"], sorted({result["seeds"] for result in results})
    return (
        f"MEASURED: means over {' or '.join(map(str, seeds))} seeds with 95% intervals, each run in a fresh process, "
        "arms taking turns; evaluation is in no time, and ratios are paired by seed. Compile and prepare: what comes "
        "before the first step and what the first epoch takes longer than the median of the others; totals and the "
        "time to the target include it. Choosing the plan is apart. "
        f"{conditions['processor']}, {conditions['cores']} cores; {conditions['versions']}; {results[0]['date']}. "
        "Command: `python benchmarks/training.py`."
    )


def write(pages: Sequence[Path] = (ROOT / "README.md", ROOT / "README.zh.md"), folder: Path = RESULTS) -> str:
    """Put the table between the marks of each page; return it."""
    text = table(read_results(folder))
    for page in pages:
        page.write_text(MARKED.sub(lambda marks: marks[1] + text + "\n" + marks[2], page.read_text()))
    return text
