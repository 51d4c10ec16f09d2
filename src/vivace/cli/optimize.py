"""`vivace optimize TARGET`: the fastest way to run a model here, proved, within the quality that may be lost."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from vivace.cli.options import Json, Quiet, TimeOrPreset, split_names
from vivace.cli.output import document_only, emit, out_console, progress_shown
from vivace.cli.plans import plan_given
from vivace.core.errors import Cancelled, UsageError
from vivace.core.quality import Budget, Gate
from vivace.core.result import Result
from vivace.core.workload import Objective, Preset

THERE = (
    "this list is of this machine; with --cluster each kind of node makes its own, and --time is of one trial and not "
    "of the whole"
)
"""What is told of a dry run that names a cluster, which is not asked."""


def optimize(
    target: Annotated[
        str,
        typer.Argument(
            help="path/to/file.py:name, where name is a Workload or a function that returns one; or a model file "
            "(.onnx, .pt2, .keras).",
            metavar="TARGET",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Where the artifact goes; one that is there is replaced.")] = Path(
        "fast"
    ),
    objective: Annotated[Objective, typer.Option("--objective", help="What is to become small.")] = Objective.LATENCY,
    max_drop: Annotated[
        float, typer.Option("--max-drop", help="Quality that may be lost: 0.01 is one point of accuracy.")
    ] = 0.01,
    relative: Annotated[
        bool, typer.Option("--relative", help="--max-drop is a share of the original's score.")
    ] = False,
    time: TimeOrPreset = None,
    preset: Annotated[
        Preset,
        typer.Option(
            "--preset",
            help="quick: 1m, at most 2 plans confirmed; default: 5m, 3 plans; thorough: 30m, 5 plans, in 5 pairs of "
            "fresh processes each and not 3. --time overrides the time.",
        ),
    ] = Preset.DEFAULT,
    calls: Annotated[
        int | None,
        typer.Option(
            "--calls",
            help="How many calls a loaded model will serve: choose by the time of loading and all calls, not of one.",
            metavar="N",
        ),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            "--device",
            help="cpu; cuda or tpu (each fails where there is none); or auto: plans may use whatever is here.",
        ),
    ] = "auto",
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
            help="Try this plan and no other: threads,openvino, or as a report prints it, such as 'threads(count=1) + "
            "inductor(freeze=True)', or the JSON that results.json holds.",
            metavar="NAME,...|JSON",
        ),
    ] = "",
    gate: Annotated[
        Gate,
        typer.Option(
            "--gate",
            help="strict: a certified bound; point: the estimate; fidelity: agreement with the original's outputs.",
        ),
    ] = Gate.STRICT,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="List the plans that would be tried with PREDICTED gains, time and disk, and stop."
        ),
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a run with this --out was stopped.")] = False,
    native: Annotated[
        bool, typer.Option("--native", help="Allow artifacts with native code, which load only with trust=True.")
    ] = False,
    fixed_shapes: Annotated[
        bool, typer.Option("--fixed-shapes", help="Allow plans that accept exactly the example's shapes.")
    ] = False,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            "--keep", help="Layers that stay in float, by module path or pattern: head,layer4.*.", metavar="LAYER,..."
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of everything that is drawn by chance.")] = 0,
    cluster: Annotated[
        str,
        typer.Option(
            "--cluster",
            help="Spread the trials over the Ray cluster at this address (HOST:PORT, auto), each node judged on its "
            "own hardware; local starts a Ray here.",
            metavar="ADDRESS",
        ),
    ] = "",
    price: Annotated[
        list[str] | None,
        typer.Option(
            "--price",
            help="What a node costs an hour, by its name, address or resource: c7i=0.36,gpu=2.10.",
            metavar="NODE=PRICE,...",
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find the fastest way to run a model on this machine, prove it, and keep it as an artifact.

    Examples:

      vivace optimize work.py:digits --out fast --time 5m

      vivace optimize model.onnx --max-drop 0.005 --json

      vivace optimize work.py:digits --preset quick --calls 1000

      vivace optimize work.py:digits --only threads,openvino --dry-run
    """
    from vivace.measure.forking import client
    from vivace.report.duration import parse_duration

    client.prepare()  # it imports PyTorch while we do
    budget = Budget(drop=max_drop, relative=relative)
    if time is not None:
        parse_duration(time)
    asked: dict[str, Any] = {
        "budget": budget,
        "objective": objective.value,
        "time": time,
        "preset": preset.value,
        "calls": calls,
        "only": split_names(only),
        "without": split_names(without),
        "native": native,
        "fixed_shapes": fixed_shapes,
        "device": device,
        "gate": gate.value,
        "plan": plan_given(plan),
        "keep": split_names(keep),
        "seed": seed,
    }
    prices = _prices(price)
    _check_cluster(cluster, price, resume)
    if dry_run:
        _preview(target, cluster, asked, as_json)
        return
    asked |= {"out": out, "resume": resume}
    if cluster:
        _on_cluster(target, cluster, prices, asked, as_json, quiet)
        return
    result = _search(target, asked, as_json, quiet)
    show_result(result, as_json)
    raise typer.Exit(result.status.exit_code)


def _check_cluster(cluster: str, price: list[str] | None, resume: bool) -> None:
    """Raise UsageError for options that would have no effect."""
    if price and not cluster:
        raise UsageError("--price was given without --cluster; prices rank the nodes of a cluster (--cluster ADDRESS)")
    if cluster and resume:
        raise UsageError("--resume was given with --cluster; a search over a cluster keeps no journal: leave it out")


def _prices(given: list[str] | None) -> dict[str, float]:
    """Prices as they are typed. Raises UsageError."""
    found: dict[str, float] = {}
    for word in split_names(given):
        label, equals, value = word.rpartition("=")
        try:
            found[label] = float(value)
        except ValueError:
            equals = ""
        if not equals or not label or not 0 <= found[label] < math.inf:
            raise UsageError(f"--price has {word!r}; allowed is NODE=PRICE, such as c7i=0.36, 0 or more for an hour")
    return found


def _on_cluster(
    target: str, address: str, prices: dict[str, float], asked: dict[str, Any], as_json: bool, quiet: bool
) -> None:
    """The search over a cluster, shown."""
    from vivace.report.cluster import cluster_block, cluster_document
    from vivace.report.terminal import print_block

    with document_only(as_json), progress_shown(quiet) as progress:
        from vivace.api.target import resolve_workload
        from vivace.api.together.cluster import FURTHER, TRIAL_TIME, optimize_on_cluster

        plan, time = asked["plan"], asked["time"]
        further = {name: value for name, value in asked.items() if name in FURTHER}
        try:
            found = optimize_on_cluster(
                resolve_workload(target), address, asked["budget"], out=asked["out"], prices=prices,
                plans=[plan] if plan else (), trial_time=TRIAL_TIME if time is None else time, progress=progress,
                **further,
            )  # fmt: skip
        except KeyboardInterrupt:
            raise Cancelled("cancelled; nothing of the cluster's trials was kept") from None
    if as_json:
        emit(cluster_document(found).to_text())
    else:
        print_block(out_console(), cluster_block(found))
    raise typer.Exit(0 if found.standings and found.standings[0].speedup is not None else 3)


def show_result(result: Result, as_json: bool) -> None:
    """The document or the block of a result, on standard output."""
    from vivace.report.results import to_document
    from vivace.report.terminal import print_result

    if as_json:
        emit(to_document(result).to_text())
    else:
        print_result(out_console(), result)


def _search(target: str, asked: dict[str, Any], as_json: bool, quiet: bool) -> Result:
    with document_only(as_json), progress_shown(quiet) as progress:
        from vivace.api import optimize as search
        from vivace.api.target import resolve_workload
        from vivace.search.journal import run_path

        try:
            return search(resolve_workload(target), progress=progress, **asked)
        except KeyboardInterrupt:
            tried = run_path(Path(asked["out"])).is_dir()
            on = "--resume goes on from here" if tried else "no plan had been tried yet"
            kept = f"what was at {asked['out']} is unchanged, and {on}"
            raise Cancelled(f"cancelled; {kept}") from None


def _preview(target: str, cluster: str, asked: dict[str, Any], as_json: bool) -> None:
    from vivace.report.results import preview_document
    from vivace.report.terminal import preview_block, print_block

    with document_only(as_json):
        from vivace.api import preview
        from vivace.api.target import resolve_workload

        if cluster:
            from vivace.api.together.cluster import check_ray

            check_ray()
        found = preview(resolve_workload(target), **asked)
    if cluster:
        found = dataclasses.replace(found, notes=(*found.notes, THERE))
    if as_json:
        emit(preview_document(found).to_text())
    else:
        print_block(out_console(), preview_block(found))
