"""`vivace train TARGET`: diagnose, plan, prove, train."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from vivace.cli.options import Json, Quiet, split_names
from vivace.cli.output import document_only, emit, out_console, progress_shown
from vivace.cli.plans import plan_given
from vivace.core.errors import Cancelled, WorkerFailure

AGAIN = ("until", "processes", "layout", "nodes", "node_rank", "rdzv_endpoint", "max_restarts", "deadline")


def train(
    context: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            help="path/to/file.py:name, where name is a Training or a function that returns one.", metavar="TARGET"
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", help="Receives model.safetensors, run.json, report.html, checkpoints.")
    ] = Path("run"),
    until: Annotated[
        float | None, typer.Option("--until", help="Stop after the first epoch that scores this much.")
    ] = None,
    time: Annotated[
        str,
        typer.Option(
            "--time",
            help="The most that choosing how to train may take, such as 3m or 90s, from the diagnosis to the "
            "confirmation in fresh processes; one plan is tried in any case.",
        ),
    ] = "3m",
    processes: Annotated[
        int, typer.Option("--processes", help="Processes that may train together, if one is not faster.")
    ] = 1,
    layout: Annotated[
        str,
        typer.Option(
            "--layout",
            help="How they are arranged: data, shard, tensor, pipeline, micro, schedule, each "
            "with a number or name, as in shard=2,tensor=2. Unless given, the fastest is measured; given, it trains.",
            metavar="AXIS=N,...",
        ),
    ] = "",
    nodes: Annotated[
        str, typer.Option("--nodes", help="Machines that train together, or LEAST:MOST.", metavar="N|LEAST:MOST")
    ] = "1",
    node_rank: Annotated[int, typer.Option("--node-rank", help="The number of this machine, from 0.")] = 0,
    rdzv_endpoint: Annotated[
        str,
        typer.Option(
            "--rdzv-endpoint",
            help="Where the processes meet: an address of machine 0, and a port.",
            metavar="HOST[:PORT]",
        ),
    ] = "",
    max_restarts: Annotated[
        int, typer.Option("--max-restarts", help="How often all start again after one has died.")
    ] = 3,
    deadline: Annotated[
        str, typer.Option("--deadline", help="How long processes wait for one of them, such as 5m.")
    ] = "5m",
    only: Annotated[
        list[str] | None,
        typer.Option("--only", help="Techniques that may be used, with commas between them.", metavar="NAME,..."),
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option("--without", help="Techniques that may not be used.", metavar="NAME,...")
    ] = None,
    plan: Annotated[
        str,
        typer.Option(
            "--plan",
            help="Train with this plan, proved and not timed: sample-cache,native-step, or as a report or "
            "run.json has it; '[]' for the layout alone.",
            metavar="NAME,...|JSON",
        ),
    ] = "",
    changed: Annotated[
        bool, typer.Option("--changed", help="Allow techniques that change the computation by design.")
    ] = False,
    diagnose_only: Annotated[
        bool, typer.Option("--diagnose-only", help="Tell where a step's time and memory go, and stop.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on exactly where a run with this --out was stopped.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a model faster, and prove that it is still the same training.

    Gradients of every parameter are compared with float64 before a technique may be used, and steps are timed in pairs.

    Examples:

      vivace train job.py:digits --out run --until 0.98

      vivace train job.py:digits --diagnose-only

      vivace train job.py:digits --out run --resume --json
    """
    from vivace.measure.forking import client
    from vivace.report.duration import parse_duration

    client.prepare()  # it imports PyTorch while we do
    parse_duration(time)
    asked: dict[str, Any] = {
        "until": until, "out": out, "time": time, "only": split_names(only), "without": split_names(without),
        "changed": changed, "resume": resume, "plan": plan_given(plan),
    }  # fmt: skip
    with document_only(as_json), progress_shown(quiet) as progress:
        from vivace.api import diagnose
        from vivace.api import train as learn
        from vivace.api.target import resolve_training

        if processes != 1 or nodes != "1" or layout:
            asked["team"] = _team(processes, nodes, node_rank, rdzv_endpoint, max_restarts, deadline, layout)
        job = resolve_training(target)
        try:
            if diagnose_only:
                shown: Any = diagnose(job, team=asked.get("team"), until=until)
            else:
                shown = learn(job, progress=progress, **asked)
        except KeyboardInterrupt:
            raise Cancelled(f"cancelled; {_how_to_go_on(target, out, context)}") from None
        except WorkerFailure as failure:
            if diagnose_only or not _has_checkpoint(out):
                raise
            raise WorkerFailure(
                failure.outcome, f"{failure.reason}; {_how_to_go_on(target, out, context)}"
            ) from failure
    _show(shown, as_json, diagnose_only)


def _team(
    processes: int, nodes: str, node_rank: int, endpoint: str, max_restarts: int, deadline: str, layout: str
) -> Any:
    from vivace.core.errors import UsageError
    from vivace.distributed.team import Team
    from vivace.report.duration import parse_duration

    host, colon, port = endpoint.rpartition(":") if ":" in endpoint else (endpoint, "", "")
    if colon and not port.isdigit():
        raise UsageError(f"--rdzv-endpoint is {endpoint!r}; allowed is HOST or HOST:PORT")
    meeting = {"address": host} if host else {}
    return Team.of(
        processes, nodes, node_rank=node_rank, restarts=max_restarts, deadline=parse_duration(deadline), layout=layout,
        **meeting, **({"port": int(port)} if port else {}),
    )  # fmt: skip


def _has_checkpoint(out: Path) -> bool:
    from vivace.api.running.folder import has_checkpoint  # it brings PyTorch

    return has_checkpoint(out)


def _how_to_go_on(target: str, out: Path, context: typer.Context) -> str:
    if _has_checkpoint(out):
        again = f"vivace train {target} --out {out}{_options_again(context)} --resume"
        return f"the last checkpoint is kept in {out}; go on with: {again}"
    return "no step was trained yet, so there is nothing to go on from"


def _options_again(context: typer.Context) -> str:
    """Those of the options given that a run which goes on needs again: it has its plan, and not where it trained."""
    sources = {one: context.get_parameter_source(one.name or "") for one in context.command.params if one.name in AGAIN}
    given = [one for one, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    return "".join(f" {one.opts[0]} {shlex.quote(str(context.params[one.name or '']))}" for one in given)


def _show(shown: Any, as_json: bool, diagnose_only: bool) -> None:
    from vivace.report.terminal import print_block
    from vivace.report.training import diagnosis_block, diagnosis_document, training_block, training_document

    if as_json:
        emit((diagnosis_document(shown) if diagnose_only else training_document(shown)).to_text())
    else:
        print_block(out_console(), diagnosis_block(shown) if diagnose_only else training_block(shown))
