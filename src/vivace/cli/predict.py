"""`vivace predict TARGET`: time, memory, energy and money on hardware that is not here, PREDICTED."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from vivace.cli.options import Json, split_names
from vivace.cli.output import document_only, emit, out_console
from vivace.core.errors import UsageError

_TARGET = (
    "path/to/file.py:name (a Workload, a Training or a Transformer), a model file, or a transformer in words: "
    "transformer:layers=24,width=2048,heads=16,sequence=2048"
)


def predict(
    target: Annotated[str, typer.Argument(help=_TARGET, metavar="TARGET")] = "",
    on: Annotated[
        list[str] | None,
        typer.Option(
            "--on",
            help="Devices of the catalogue, with commas between them; here: processes of this machine that train; or "
            "arrays: asic:ROWSxCOLUMNS[:os|ws|is][:2of4].",
            metavar="DEVICE,...",
        ),
    ] = None,
    count: Annotated[str, typer.Option("--count", help="How many of each: 1,8,64,512.", metavar="N,...")] = "1",
    batch: Annotated[
        int | None, typer.Option("--batch", help="Samples of an update; the job's own by default.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option("--precision", help="Of products: f32, tf32, f16, bf16, fp8, int8, fp4.")
    ] = None,
    price: Annotated[
        list[str] | None,
        typer.Option("--price", help="Of a device for an hour, in any currency.", metavar="DEVICE=PRICE,..."),
    ] = None,
    measured: Annotated[
        list[str] | None,
        typer.Option("--measured", help="Samples a second seen on a count.", metavar="DEVICE=COUNT:RATE[:BATCH],..."),
    ] = None,
    runs: Annotated[
        list[str] | None,
        typer.Option(
            "--runs", help="Samples to the target score by batch, three or more.", metavar="BATCH=SAMPLES,..."
        ),
    ] = None,
    layouts: Annotated[
        bool, typer.Option("--layouts", help="Rank the ways to spread a transformer; the best three are shown.")
    ] = False,
    input_rate: Annotated[
        float | None,
        typer.Option(
            "--input-rate", help="What storage gives, in GB/s: whether it binds 1,000 devices.", metavar="GB/S"
        ),
    ] = None,
    checkpoint_seconds: Annotated[
        float,
        typer.Option("--checkpoint-seconds", help="To write a checkpoint: what failures cost 1,000 devices follows."),
    ] = 60.0,
    restart_seconds: Annotated[
        float, typer.Option("--restart-seconds", help="To start again after a failure of 1,000 devices or more.")
    ] = 600.0,
    sweep: Annotated[
        bool,
        typer.Option(
            "--sweep", help="Of arrays: compare sizes, dataflows, sparsity and bandwidths; the front is shown."
        ),
    ] = False,
    clock: Annotated[float, typer.Option("--clock", help="Of an array: its clock in MHz.")] = 500.0,
    bandwidth: Annotated[
        list[str] | None,
        typer.Option("--bandwidth", help="Of an array: its memory's, in GB/s; 16 by default.", metavar="GB/S,..."),
    ] = None,
    buffer: Annotated[float, typer.Option("--buffer", help="Of an array: memory on the chip, in KiB.")] = 1024.0,
    show_list: Annotated[bool, typer.Option("--list", help="List the devices that are known, and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Predict what the same work would take elsewhere: time, memory, energy, money, each with its interval.

    Beyond every measurement a line is refused, with the reason. For systolic arrays, one call of a Workload is told
    product by product: time, energy, gates, and which layers wait for memory. Nothing here is measured.

    Examples:

      vivace predict --list

      vivace predict work.py:digits --on h100-sxm,t4,tpu-v5e --count 1,8

      vivace predict job.py:digits --on h100-sxm --count 1,8,64 --batch 512 --price h100-sxm=2.5

      vivace predict transformer:layers=24,width=2048,heads=16,sequence=1024 --on a100-sxm-40 --count 8 --batch 32
        --layouts

      vivace predict work.py:digits --on asic:16x16,asic:32x32:os --bandwidth 4,16

      vivace predict work.py:digits --sweep
    """
    if show_list:
        _show_devices(as_json)
        return
    if not target:
        raise UsageError(f"TARGET is missing; allowed is {_TARGET}; `vivace predict --list` shows the devices")
    devices = split_names(on)
    if not devices and not sweep:
        raise UsageError(
            "--on is missing; give devices, such as --on h100-sxm (`vivace predict --list` shows them), arrays, such "
            "as --on asic:16x16, or --sweep"
        )
    asked: dict[str, Any] = {
        "count": [_whole("--count", word) for word in split_names([count])],
        "batch": batch,
        "precision": precision,
        "prices": {key: _number("--price", value) for key, value in _pairs("--price", price)},
        "measured": {key: _seen(value) for key, value in _pairs("--measured", measured)},
        "runs": [(_number("--runs", key), _number("--runs", value)) for key, value in _pairs("--runs", runs)],
        "layouts": layouts,
        "input_bytes_per_second": None if input_rate is None else input_rate * 1e9,
        "checkpoint_seconds": checkpoint_seconds,
        "restart_seconds": restart_seconds,
        "sweep": sweep,
        **_board(clock, [_number("--bandwidth", word) for word in split_names(bandwidth)], buffer),
    }
    with document_only(as_json):
        from vivace.api import predict as foresee
        from vivace.api.target import resolve_predicted

        found = foresee(resolve_predicted(target), on=devices, **asked)
    _show(found, as_json)
    if told := _impossible(found):
        emit(f"error: {told}", sys.stderr)
        raise typer.Exit(UsageError.exit_code)


def _impossible(found: Any) -> str:
    """Why nothing that was asked for could run on any hardware; empty where something could."""
    lines = getattr(found, "lines", ())
    if not lines or not all(line.cannot_run for line in lines):
        return ""
    reasons = "; ".join(dict.fromkeys(f"{line.count} x {line.device}: {line.refusal}" for line in lines))
    return f"nothing that was asked for can run: {reasons}"


def _board(clock: float, bandwidths: list[float], buffer: float) -> dict[str, Any]:
    """What is around an array; the first bandwidth is that of its board."""
    from vivace.hardware.array.memory import USUAL, Board

    board = Board(clock * 1e6, bandwidths[0] * 1e9 if bandwidths else USUAL.bandwidth, buffer * 1024)
    return {"board": board, "bandwidths": [width * 1e9 for width in bandwidths]}


def _show(found: Any, as_json: bool) -> None:
    from vivace.hardware.array.result import ArrayPrediction
    from vivace.report.prediction import prediction_block, prediction_document
    from vivace.report.silicon import foreseen
    from vivace.report.terminal import print_block

    if isinstance(found, ArrayPrediction):
        if as_json:
            emit(foreseen.document_of(found).to_text())
        else:
            print_block(out_console(), foreseen.prediction_block(found))
    elif as_json:
        emit(prediction_document(found))
    else:
        print_block(out_console(), prediction_block(found))


def _show_devices(as_json: bool) -> None:
    from vivace.devices.catalog import devices
    from vivace.report.prediction import device_table, devices_document
    from vivace.report.terminal import print_block

    known = list(devices().values())
    if as_json:
        emit(devices_document(known))
    else:
        print_block(out_console(), device_table(known))


def _pairs(option: str, given: list[str] | None) -> list[tuple[str, str]]:
    pairs = [word.partition("=") for word in split_names(given)]
    for key, sign, value in pairs:
        if not (key and sign and value):
            raise UsageError(
                f"{option} received {key + sign + value!r}; allowed are NAME=VALUE with commas between them"
            )
    return [(key, value) for key, _, value in pairs]


def _seen(text: str) -> tuple[int, float] | tuple[int, float, int]:
    count, _, rest = text.partition(":")
    rate, colon, batch = rest.partition(":")
    seen = _whole("--measured", count), _number("--measured", rate)
    return (*seen, _whole("--measured", batch)) if colon else seen


def _whole(option: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"{option} received {text!r}; allowed are whole numbers") from None


def _number(option: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{option} received {text!r}; allowed are numbers") from None
