"""Turns the benchmark's result files into the Markdown table of the README, with its conditions."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
MARKED = re.compile(r"(<!-- results: begin [^>]*-->\n).*?(<!-- results: end -->)", re.DOTALL)
COLUMNS = {
    "vivace": "Vivace",
    "inference_mode": "inference mode",
    "torch_compile": "torch.compile",
    "onnxruntime_default": "ONNX Runtime",
    "openvino_default": "OpenVINO",
    "openvino_int8": "OpenVINO int8",
}


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
    """Speed-ups over eager PyTorch as given, and ours over the best peer, with 95% intervals."""
    header = ["workload", *COLUMNS.values(), "Vivace / best peer"]
    rows = [[result["workload"].replace("_", "-"), *_cells(result), _ratio(result)] for result in results]
    lines = [header, ["---"] * len(header), *rows]
    ratios = [result["ours_over_best_peer"]["value"] for result in results if result["ours_over_best_peer"]]
    closing = f"Geometric mean of Vivace / best peer over {len(ratios)} workloads: **{geometric_mean(ratios):.2f}**."
    body = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    return "\n\n".join([body, closing if ratios else "", legend(results)]).replace("\n\n\n\n", "\n\n")


def _cells(result: Mapping[str, Any]) -> list[str]:
    return [_cell(result["arms"].get(arm)) for arm in COLUMNS]


def _cell(arm: Mapping[str, Any] | None) -> str:
    if not arm or arm["outcome"] != "ok":
        return "failed"
    speedup = arm["speedup"]
    shown = f"{speedup['value']:.2f} {_bounds(speedup)}"
    return shown if arm["quality"]["verdict"] == "HELD" else f"({shown}) {arm['quality']['verdict']}"


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
    return (
        f"MEASURED: times faster than eager PyTorch as given, with 95% intervals over {effort['restarts']} pairs of "
        f'fresh processes; `vivace.optimize(time="{effort["time"]}")`. In brackets: outside the budget of 1 point at '
        "95% confidence, so not counted as the best peer. "
        f"{conditions['processor']}, {conditions['cores']} cores; {conditions['versions']}; {results[0]['date']}. "
        "Command: `python benchmarks/inference.py`; raw samples are in `benchmarks/results`."
    )


def write(page: Path = ROOT / "README.md", folder: Path = RESULTS) -> str:
    """Put the table between the page's marks and beside the results; return it."""
    text = table(read_results(folder))
    (folder / "table.md").write_text(text + "\n")
    page.write_text(MARKED.sub(lambda marks: marks[1] + text + "\n" + marks[2], page.read_text()))
    return text
