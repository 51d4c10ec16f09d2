"""`vivace serve ARTIFACT`: the artifact behind the Open Inference Protocol v2, until it is told to end."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vivace.cli.options import Json, Quiet
from vivace.cli.output import emit, emit_json
from vivace.core.errors import MissingExtra, UsageError

if TYPE_CHECKING:
    from vivace.serve.front.stand import Stand

TOKEN_VARIABLE = "VIVACE_TOKEN"
PACKAGES = {"uvicorn": "uvicorn", "httptools": "httptools", "uvloop": "uvloop", "orjson": "orjson",
            "prometheus_client": "prometheus-client"}  # fmt: skip


def serve(
    artifact: Annotated[
        Path, typer.Argument(help="The folder that `vivace optimize --out` wrote.", metavar="ARTIFACT")
    ],
    host: Annotated[str, typer.Option("--host", help="Address to listen on. Others than loopback need a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option("--port", help="Port to listen on; 0 for any that is free.")] = 8000,
    name: Annotated[
        str, typer.Option("--name", help="What clients call the model. Default: the artifact's name.")
    ] = "",
    workers: Annotated[int, typer.Option("--workers", help="Processes that compute, each with its own copy.")] = 1,
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", help=f"File with the token that requests must carry (or set {TOKEN_VARIABLE})."),
    ] = None,
    max_batch: Annotated[
        int | None,
        typer.Option("--max-batch", help="Most samples computed together; 1 for none. Default: as measured at start."),
    ] = None,
    batch_window: Annotated[
        str,
        typer.Option("--batch-window", help="How long a batch that is not full waits for others.", metavar="DURATION"),
    ] = "0s",
    queue: Annotated[
        int, typer.Option("--queue", help="Most requests that wait; others get 503 and Retry-After.")
    ] = 1024,
    timeout: Annotated[
        str, typer.Option("--timeout", help="How long a request may wait and compute.", metavar="DURATION")
    ] = "30s",
    grace: Annotated[
        str,
        typer.Option(
            "--grace", help="After SIGTERM: how long requests are accepted though not ready.", metavar="DURATION"
        ),
    ] = "0s",
    max_body: Annotated[int, typer.Option("--max-body", help="Most megabytes of a request, also decompressed.")] = 64,
    trust: Annotated[bool, typer.Option("--trust", help="Load an artifact that holds native code.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Serve an artifact over HTTP: Open Inference Protocol v2 with binary tensors, metrics, and a page for people at /.

    The artifact is checked by its golden inputs, in a worker process, before the first request. SIGHUP serves what then
    lies at ARTIFACT, once it has passed the same checks; SIGTERM or Ctrl-C answers what was accepted and ends. With
    --json one document says where it listens and what it serves, when it is ready.

    Examples:

      vivace serve fast

      vivace serve fast --port 0 --workers 2 --json

      vivace serve fast --host 0.0.0.0 --token-file token.txt
    """
    from vivace.report.duration import parse_duration

    require_serving("serving")
    from vivace.serve.front import server
    from vivace.serve.protocol.limits import Limits
    from vivace.serve.settings import Settings

    settings = Settings(
        artifact=artifact, host=host, port=port, name=name, workers=workers, token=_token(token_file), trust=trust,
        max_batch=max_batch, most_waiting=queue, timeout_seconds=parse_duration(timeout),
        grace_seconds=_duration(grace), window_seconds=_duration(batch_window),
        limits=Limits(body_bytes=max_body << 20),
    )  # fmt: skip
    logging.basicConfig(
        stream=sys.stderr, level=logging.ERROR if quiet else logging.INFO, format="%(asctime)s %(message)s", force=True
    )

    def announce(address: str, stand: Stand) -> None:
        if as_json:
            emit_json(_document(address, stand))
        else:
            emit(_text(address, stand))

    server.run(settings, announce)


def require_serving(purpose: str) -> None:
    """Raise MissingExtra unless the packages of the extra `serve` are installed."""
    from importlib.util import find_spec

    for module, package in PACKAGES.items():
        if find_spec(module) is None:
            raise MissingExtra(package, "serve", purpose)


def _token(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--token-file {file} cannot be read ({error}); give a file with one token in it") from None


def _duration(text: str) -> float:
    """Seconds; unlike most durations it may be none."""
    from vivace.report.duration import parse_duration

    return 0.0 if text.strip() in ("0", "0s") else parse_duration(text)


def _document(address: str, stand: Stand) -> dict[str, object]:
    facts = stand.facts
    return {
        "schema_version": 1,
        "address": address,
        "model": stand.model.name,
        "digest": facts.digest,
        "plan": facts.manifest["plan_name"],
        "pid": os.getpid(),
        "workers": stand.crew.pids,
        "batching": {
            "most_samples": stand.policy.most_samples,
            "why_not": facts.why_not_batched,
            "fixed_seconds": facts.curve.fixed_seconds,
            "sample_seconds": facts.curve.sample_seconds,
        },
        "queue": stand.policy.most_waiting,
    }


def _text(address: str, stand: Stand) -> str:
    facts, most = stand.facts, stand.policy.most_samples
    curve = (
        f"{1000 * facts.curve.fixed_seconds:.3g} + {1000 * facts.curve.sample_seconds:.3g} n ms for n samples, MEASURED"
    )
    batching = (
        f"up to {most} samples together"
        if most > 1
        else f"one request at a time ({facts.why_not_batched or 'as asked'})"
    )
    return (
        f"{stand.model.name} is served at {address}/v2/models/{stand.model.name}/infer\n"
        f"  {batching}; a call takes {curve}\n"
        f"  page {address}/   metrics {address}/metrics   Ctrl-C ends it"
    )
