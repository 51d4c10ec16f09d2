"""`vivace bench-serve`: what a server gives under load, and how much faster the accelerated model is served."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from vivace.cli.options import Json
from vivace.cli.output import emit, emit_json
from vivace.cli.serve import require_serving
from vivace.core.errors import EnvironmentFault, UsageError

if TYPE_CHECKING:
    from vivace.core.measurement import Interval
    from vivace.serve.load.drive import Slice
    from vivace.serve.load.requests import Target

COMMAND = "import sys; from vivace.cli import main; sys.exit(main())"
BLOCKS = 6
"""Of four slices each: the fewest from which an interval can be had."""
LONE_SHARE, FULL_SHARE, HALF_SHARE = 0.2, 0.4, 0.4


@dataclasses.dataclass(frozen=True)
class Load:
    """How a server is driven: for how long in all, by how many requests at the most, from how many connections."""

    seconds: float
    requests: int
    connections: int
    per_second: float | None


def bench_serve(
    targets: Annotated[
        list[str],
        typer.Argument(
            help="A server's address (http://HOST:PORT) or an artifact, which is then served here. Two: the original "
            "and the accelerated one, compared.",
            metavar="URL|ARTIFACT...",
        ),
    ],
    time: Annotated[str, typer.Option("--time", help="How long to drive, in all.", metavar="DURATION")] = "30s",
    requests: Annotated[int, typer.Option("--requests", help="Most requests of one slice.")] = 100_000,
    connections: Annotated[int, typer.Option("--connections", help="Clients of the closed loop.")] = 16,
    rate: Annotated[
        float | None,
        typer.Option("--rate", help="Requests a second of the open loop. Default: half of what saturates the server."),
    ] = None,
    model: Annotated[str, typer.Option("--model", help="The model's name at a URL. Not needed for an artifact.")] = "",
    token_file: Annotated[Path | None, typer.Option("--token-file", help="File with the server's token.")] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Serve artifacts that hold native code.")] = False,
    as_json: Json = False,
) -> None:
    """Drive a server to its limit, and at half of it; or compare two in alternating slices.

    One target: the latency of a lone client; the answers a second to --connections clients, each of which waits for its
    answer (closed loop); the latency of requests at random moments (open loop, Poisson) at half of that rate. Latencies
    have p50, p90 and p99 with their 95% bounds. Two targets: both in alternating slices of the closed loop, and the
    served speed-up beside the model's own.

    Examples:

      vivace bench-serve fast

      vivace bench-serve http://127.0.0.1:8000 --model digits-cnn --rate 500

      vivace bench-serve original fast --time 1m --json
    """
    from vivace.report.duration import parse_duration

    require_serving("driving a server")
    if not 1 <= len(targets) <= 2:
        raise UsageError(f"received {len(targets)} targets; give one, or the original and the accelerated one")
    if connections < 1 or requests < 1 or (rate is not None and rate <= 0):
        raise UsageError("--connections, --requests and --rate must be positive")
    load = Load(parse_duration(time), requests, connections, rate)
    token = token_file.read_text(encoding="utf-8").strip() if token_file else None
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(_opened(text, model, token, trust)) for text in targets]
        document = _one(opened[0], load) if len(opened) == 1 else _two(opened, targets, load)
    if as_json:
        emit_json({"schema_version": 1, **document})
    else:
        emit(_words(document))


@contextlib.contextmanager
def _opened(text: str, model: str, token: str | None, trust: bool) -> Iterator[Target]:
    """The target that a text names; an artifact is served while the block runs."""
    from vivace.serve.load import requests as ready

    folder = None if text.startswith(("http://", "https://")) else Path(text)
    with contextlib.ExitStack() as stack:
        address = text if folder is None else stack.enter_context(_serving(folder, trust))
        parts = urlsplit(address)
        if parts.scheme != "http" or parts.hostname is None:
            raise UsageError(f"{address} is not an address that can be driven; give http://HOST:PORT, or an artifact")
        where = (parts.hostname, parts.port or 80)
        metadata = _metadata(address, model or (_name_of(folder) if folder else ""), token)
        calls = ready.of_artifact(folder, metadata) if folder else ready.of_metadata(metadata)
        yield ready.Target(text, *where, ready.messages(where, metadata, calls, token))


@contextlib.contextmanager
def _serving(folder: Path, trust: bool) -> Iterator[str]:
    """The address of a server of this artifact, in a process of its own."""
    command = [sys.executable, "-c", COMMAND, "serve", str(folder), "--port", "0", "--json", "--quiet"]
    process = subprocess.Popen([*command, *(["--trust"] if trust else [])], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line == "}\n":
                break
        told = json.loads("".join(lines)) if lines else {}
        if "address" not in told:
            raise EnvironmentFault(f"{folder} could not be served: {told.get('error', {}).get('message', 'no answer')}")
        yield told["address"]
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def _name_of(folder: Path) -> str:
    from vivace.artifact.manifest import read_manifest

    return read_manifest(folder).name


def _metadata(address: str, model: str, token: str | None) -> Mapping[str, Any]:
    from vivace.serve.load.metadata import read_metadata

    return read_metadata(address, model, token)


def _one(target: Target, load: Load) -> dict[str, Any]:
    from vivace.serve.load.compare import tail
    from vivace.serve.load.drive import Bounds, closed_loop, open_loop

    def bounds(share: float) -> Bounds:
        return Bounds(load.requests, load.seconds * share)

    lone = closed_loop(target, 1, bounds(LONE_SHARE))
    full = closed_loop(target, load.connections, bounds(FULL_SHARE))
    rate = load.per_second or full.per_second / 2
    if rate <= 0:
        raise EnvironmentFault(f"{target.name} gave no good answer: {dict(full.codes)}; see its log")
    half = open_loop(target, rate, bounds(HALF_SHARE))
    late = tail(lone, half)
    return {
        "target": target.name,
        "unloaded": _told(lone),
        "saturated": {"connections": load.connections, **_told(full)},
        "open_loop": {"asked_per_second": rate, **_told(half)},
        "tail": None if late is None else dataclasses.asdict(late),
    }


def _two(opened: list[Target], targets: list[str], load: Load) -> dict[str, Any]:
    from vivace.serve.load.compare import ORDER, alternate, joined
    from vivace.serve.load.drive import Bounds, closed_loop

    bounds = Bounds(load.requests, load.seconds / (BLOCKS * len(ORDER)))

    def drive(target: Target) -> Slice:
        return closed_loop(target, load.connections, bounds)

    for target in opened:
        drive(target)
    try:
        found = alternate(lambda: drive(opened[0]), lambda: drive(opened[1]), BLOCKS)
    except ValueError as error:
        raise EnvironmentFault(f"{error}; see its log") from None
    return {
        "original": {"target": targets[0], "connections": load.connections, **_told(joined(found.original))},
        "accelerated": {"target": targets[1], "connections": load.connections, **_told(joined(found.other))},
        "served_speedup": _interval(found.speedup),
        "model_speedup": _model_speedup(targets[1]),
    }


def _model_speedup(target: str) -> Mapping[str, Any] | None:
    """What the artifact's own proof says of the model alone; None of a URL."""
    if target.startswith(("http://", "https://")):
        return None
    from vivace.artifact.manifest import read_manifest

    found: Mapping[str, Any] | None = read_manifest(Path(target)).speed.get("speedup")
    return found


def _told(found: Slice) -> dict[str, Any]:
    return {
        "per_second": found.per_second,
        "answers": len(found.latencies),
        "failed": found.failed,
        "codes": {str(code): count for code, count in found.codes.items()},
        "seconds": found.seconds,
        **{f"p{round(100 * one.share)}": dataclasses.asdict(one) for one in found.quantiles()},
    }


def _interval(found: Interval) -> dict[str, float | None]:
    return {"value": found.value, "low": found.low, "high": None if found.high == float("inf") else found.high}


def _words(document: Mapping[str, Any]) -> str:
    names = {
        "unloaded": "one client", "saturated": "closed loop", "open_loop": "open loop", "original": "original",
        "accelerated": "accelerated",
    }  # fmt: skip
    lines = ["latency in ms with its 95% bounds, MEASURED"]
    for key, title in names.items():
        if key in document:
            lines.append(f"{title:<12} {_row(document[key])}")
    if document.get("tail"):
        over = document["tail"]
        lines.append(
            f"p99 of the open loop: {over['over_p50']:.1f} x one client's p50, {over['over_p99']:.1f} x its p99"
        )
    if "served_speedup" in document:
        lines.append(f"served speed-up  {_ratio(document['served_speedup'])}")
        model = document["model_speedup"]
        lines.append(f"model's speed-up {_ratio(model) if model else 'not known of an address'}")
    return "\n".join(lines)


def _row(found: Mapping[str, Any]) -> str:
    parts = [f"{found['per_second']:8.0f}/s"]
    for name in ("p50", "p90", "p99"):
        if name not in found:
            continue
        low, high = found[name]["low_seconds"], found[name]["high_seconds"]
        if high is None or low is None:
            parts.append(f"{name} not estimable (n = {found['answers']})")
        else:
            parts.append(f"{name} {1000 * found[name]['seconds']:.2f} [{1000 * low:.2f}, {1000 * high:.2f}]")
    if found["failed"]:
        parts.append(f"{found['failed']} failed")
    return "  ".join(parts)


def _ratio(found: Mapping[str, Any]) -> str:
    low, high = found.get("low"), found.get("high")
    bounds = " [not estimable]" if low in (None, 0.0) or high is None else f" [{low:.2f}, {high:.2f}]"
    return f"{found['value']:.2f}{bounds}"
