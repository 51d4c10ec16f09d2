"""The short README that lies in every artifact: what it is, what was proved, how to load it."""

from __future__ import annotations

from vivace.artifact.manifest import Manifest
from vivace.core.result import Result, Status


def readme_of(result: Result, manifest: Manifest) -> str:
    """Markdown text."""
    trust = ", trust=True" if manifest.executes_native_code else ""
    quality = result.quality
    lines = [
        f"# {manifest.name}, made by Vivace {manifest.vivace_version}",
        "",
        f"Plan: {manifest.plan_name}",
        "",
        _speed(result),
        f"Quality: {quality.verdict.value} ({quality.basis}, {quality.samples} samples).",
        f"Proved on: {manifest.machine['processor']}, {manifest.machine['cores_allowed']} cores.",
        f"Accepts: {manifest.accepts}",
        *([f"Weights stored otherwise: {result.stored_weights}; counted in float32."] if result.stored_weights else []),
        "",
        "```python",
        "import vivace as vv",
        "",
        f'model = vv.load("path/to/this/folder"{trust})',
        "output = model(...)  # the same call as the original's",
        "```",
        "",
        "Loading checks every file's digest and replays the golden calls. `report.html` shows in a browser "
        "what was won and how sure that is; `results.json` holds everything that was measured; `manifest.json` the "
        "digests, the environment and the verdicts.",
    ]
    if manifest.executes_native_code:
        lines += [
            "",
            "This artifact contains native code, which runs with your rights: load it only if you built it or "
            "trust whoever did.",
        ]
    return "\n".join(lines) + "\n"


def _speed(result: Result) -> str:
    if result.status is not Status.FASTER:
        return "Speed: it is the original, for nothing else was proved to be better; no speed-up is claimed."
    speed = result.speedup
    return (
        f"Speed (MEASURED): {speed.value:.2f} times the original's [{speed.low:.2f}, {speed.high:.2f}], "
        f"{result.verdict.value}."
    )
