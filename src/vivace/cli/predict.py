"""`vivace predict TARGET`: time, memory, energy and money on hardware that is not here, PREDICTED."""

from __future__ import annotations

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
        typer.Option("--on", help="Devices of the catalogue, with commas between them.", metavar="DEVICE,..."),
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
    show_list: Annotated[bool, typer.Option("--list", help="List the devices that are known, and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Predict what the same work would take elsewhere: time, memory, energy, money, each with its interval.

    Beyond every measurement a line is refused, with the reason. Nothing here is measured.

    Examples:

      vivace predict --list

      vivace predict work.py:digits --on h100-sxm,t4,tpu-v5e --count 1,8

      vivace predict job.py:digits --on h100-sxm --count 1,8,64 --batch 512 --price h100-sxm=2.5

      vivace predict transformer:layers=24,width=2048,heads=16,sequence=1024 --on a100-sxm-40 --count 8 --batch 32
        --layouts
    """
    if show_list:
        _show_devices(as_json)
        return
    if not target:
        raise UsageError(f"TARGET is missing; allowed is {_TARGET}; `vivace predict --list` shows the devices")
    devices = split_names(on)
    if not devices:
        raise UsageError("--on is missing; give devices, such as --on h100-sxm; `vivace predict --list` shows them")
    asked: dict[str, Any] = {
        "count": [_whole("--count", word) for word in split_names([count])],
        "batch": batch,
        "precision": precision,
        "prices": {key: _number("--price", value) for key, value in _pairs("--price", price)},
        "measured": {key: _seen(value) for key, value in _pairs("--measured", measured)},
        "runs": [(_number("--runs", key), _number("--runs", value)) for key, value in _pairs("--runs", runs)],
        "layouts": layouts,
    }
    with document_only(as_json):
        from vivace.api import predict as foresee
        from vivace.api.target import resolve_predicted

        found = foresee(resolve_predicted(target), on=devices, **asked)
    _show(found, as_json)


def _show(found: Any, as_json: bool) -> None:
    from vivace.report.prediction import prediction_block, prediction_document
    from vivace.report.terminal import print_block

    if as_json:
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
