"""The page for people: what is served, how well it was proved, and how to ask it."""

from __future__ import annotations

import html
from collections.abc import Iterable

from vivace.serve.front.stand import Stand

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}
h1{font-size:1.4rem} table{border-collapse:collapse}
th,td{text-align:left;padding:.2rem .8rem .2rem 0;vertical-align:top}
th{font-weight:600;white-space:nowrap} code,pre{font:14px ui-monospace,monospace} pre{background:#f3f3f3;padding:.8rem;
overflow-x:auto}
@media(prefers-color-scheme:dark){body{color:#e6e6e6;background:#161616} pre{background:#242424} a{color:#8ab4ff}}
"""


def page(stand: Stand | None, state: str) -> str:
    """HTML without scripts and without anything from elsewhere; every value is escaped."""
    rows = [("state", state), *(_rows(stand) if stand is not None else ())]
    table = "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in rows)
    title = html.escape(stand.model.name if stand is not None else "Vivace")
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title} - Vivace</title>"
        f"<meta name=viewport content='width=device-width'><style>{_STYLE}</style>"
        f"<h1>{title}</h1><table>{table}</table>{_how_to(stand) if stand is not None else ''}"
        "<p><a href=/v2/health/ready>ready</a> <a href=/metrics>metrics</a> <a href=/v2>server</a></p></html>"
    )


def _rows(stand: Stand) -> Iterable[tuple[str, str]]:
    manifest, facts = stand.facts.manifest, stand.facts
    speed, quality = manifest.get("speed", {}).get("speedup"), manifest.get("quality", {})
    yield "inputs", stand.model.describe_inputs()
    yield "outputs", ", ".join(port.describe() for port in stand.model.outputs)
    yield "plan", str(manifest["plan_name"])
    if speed:
        yield "speed-up (MEASURED)", f"{speed['value']:.2f} [{speed['low']}, {speed['high']}] times the original's"
    if quality.get("verdict"):
        yield "quality", f"{quality['verdict']} ({quality.get('basis', '')})"
    yield "artifact", f"{facts.digest[:12]}, made {manifest['created']} by Vivace {manifest['vivace_version']}"
    a, b = 1000 * facts.curve.fixed_seconds, 1000 * facts.curve.sample_seconds
    yield "a call of n samples (MEASURED here)", f"{a:.3g} + {b:.3g} n milliseconds"
    if facts.why_not_batched:
        yield "batching", f"off: {facts.why_not_batched}"
    else:
        yield "batching", f"up to {stand.policy.most_samples} samples"
    yield "workers", f"{stand.crew.ready} ready"


def _how_to(stand: Stand) -> str:
    inputs = ", ".join(
        f'{{"name": "{port.name}", "datatype": "{port.datatype.name}", "shape": [...], "data": [...]}}'
        for port in stand.model.inputs
    )
    text = f"curl -d '{{\"inputs\": [{inputs}]}}' http://HOST:PORT/v2/models/{stand.model.name}/infer"
    return f"<pre>{html.escape(text)}</pre><p>Binary tensors are far quicker: any Open Inference Protocol client.</p>"
