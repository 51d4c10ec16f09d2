"""`vivace synthesize TARGET --chip NAME`: a network as Verilog for a chip, proved, placed and routed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from vivace.cli.options import Json, Quiet, Time, split_names
from vivace.cli.output import document_only, emit, out_console, progress_shown
from vivace.core.errors import Cancelled
from vivace.core.quality import Budget, Gate


def synthesize(
    target: Annotated[
        str,
        typer.Argument(
            help="path/to/file.py:name, where name is a Workload or a function that returns one; a .pt2 or a "
            ".keras file.",
            metavar="TARGET",
        ),
    ],
    chip: Annotated[
        str,
        typer.Option(
            "--chip",
            help="ecp5-25k, ecp5-45k, ecp5-85k, ice40-hx8k; asic:ROWSxCOLUMNS[:os|ws|is][:2of4]; tpu-v4, tpu-v5e, "
            "tpu-v5p or tpu-v6e.",
            metavar="NAME",
        ),
    ] = "ecp5-85k",
    out: Annotated[Path, typer.Option("--out", help="Where the design goes; an earlier one there is replaced.")] = Path(
        "rtl"
    ),
    weight_bits: Annotated[int, typer.Option("--weight-bits", help="Bits of a weight, 1 to 8.")] = 8,
    activation_bits: Annotated[int, typer.Option("--activation-bits", help="Bits of an activation, 1 to 8.")] = 8,
    layer_bits: Annotated[
        list[str] | None,
        typer.Option(
            "--layer-bits", help="Bits of some layers, as NAME=WEIGHTS/ACTIVATIONS; NAME may be a pattern: head=4/8."
        ),
    ] = None,
    max_drop: Annotated[
        float, typer.Option("--max-drop", help="Quality that may be lost: 0.01 is one point of accuracy.")
    ] = 0.01,
    relative: Annotated[
        bool, typer.Option("--relative", help="--max-drop is a share of the original's score.")
    ] = False,
    gate: Annotated[
        Gate,
        typer.Option(
            "--gate",
            help="strict: a certified bound; point: the estimate; fidelity: agreement with the original's outputs.",
        ),
    ] = Gate.STRICT,
    time: Time = "5m",
    cycles: Annotated[
        int | None,
        typer.Option("--cycles", help="The smallest design that takes no more cycles for a sample. Default: fastest."),
    ] = None,
    unroll: Annotated[
        list[str] | None,
        typer.Option(
            "--unroll",
            help="Small linear layers to make of adders alone, by name or pattern, with commas between them.",
            metavar="LAYER,...",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", help="How often the design is placed.")] = 3,
    vectors: Annotated[int, typer.Option("--vectors", help="Inputs that are simulated and compared.")] = 10_000,
    no_place: Annotated[bool, typer.Option("--no-place", help="Prove and synthesize only.")] = False,
    longest_placing: Annotated[
        str,
        typer.Option(
            "--longest-placing",
            help="A placing that is estimated to take longer is refused: the design is synthesized only.",
            metavar="DURATION",
        ),
    ] = "10m",
    clock: Annotated[float, typer.Option("--clock", help="Of an array (asic:...): its clock in MHz.")] = 500.0,
    bandwidth: Annotated[float, typer.Option("--bandwidth", help="Of an array: its memory's, in GB/s.")] = 16.0,
    buffer: Annotated[float, typer.Option("--buffer", help="Of an array: memory on the chip, in KiB.")] = 1024.0,
    batch: Annotated[int, typer.Option("--batch", help="Of an array: samples at a time.")] = 1,
    mesh: Annotated[
        str | None,
        typer.Option(
            "--mesh",
            help="Of TPUs: chips that run it together, as parts of the batch and of the weights.",
            metavar="data=N,tensor=M",
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Turn a network into Verilog for an FPGA or a systolic array, proved bit for bit; or compile it for a TPU.

    For an FPGA it is placed and routed with open tools. The integers are judged against the original first (exit code
    4 where they do not hold). No design is delivered whose simulation differs from the golden model in one bit or one
    cycle.

    Examples:

      vivace synthesize work.py:mlp --chip ecp5-85k --out rtl

      vivace synthesize work.py:mlp --chip ice40-hx8k --weight-bits 4 --no-place --json

      vivace synthesize work.py:mlp --chip asic:16x16:ws:2of4 --bandwidth 8 --batch 16

      vivace synthesize work.py:cnn --chip tpu-v5e --out tpu

      vivace synthesize model.keras --chip tpu-v6e --mesh data=2,tensor=4 --out tpu
    """
    from vivace.hardware.array.memory import Board
    from vivace.report.duration import parse_duration

    parse_duration(time)
    asked: dict[str, Any] = {
        "chip": chip, "out": out, "budget": Budget(drop=max_drop, relative=relative), "gate": gate.value, "time": time,
        "cycles": cycles, "seeds": seeds, "vectors": vectors, "placing": not no_place,
        "longest_placing": longest_placing, "weight_bits": weight_bits, "activation_bits": activation_bits,
        "unroll": split_names(unroll), "board": Board(clock * 1e6, bandwidth * 1e9, buffer * 1024), "batch": batch,
        "mesh": mesh,
    }  # fmt: skip
    result = _made(target, asked, split_names(layer_bits), as_json, quiet)
    _show(result, as_json)
    raise typer.Exit(result.status.exit_code)


def _made(target: str, asked: dict[str, Any], layers: Sequence[str], as_json: bool, quiet: bool) -> Any:
    with document_only(as_json), progress_shown(quiet) as progress:
        from vivace.api import synthesize as make
        from vivace.api.silicon.precision import layer_bits_of
        from vivace.api.target import resolve_workload

        try:
            return make(resolve_workload(target), layer_bits=layer_bits_of(layers), progress=progress, **asked)
        except KeyboardInterrupt:
            raise Cancelled(f"cancelled; what was at {asked['out']} is unchanged") from None


def _show(result: Any, as_json: bool) -> None:
    from vivace.hardware.array.result import ArraySynthesis
    from vivace.hardware.compiled import TpuCompilation
    from vivace.hardware.result import Synthesis
    from vivace.report.silicon import array, hardware, tpu
    from vivace.report.terminal import print_block

    page: Any = {Synthesis: hardware, ArraySynthesis: array, TpuCompilation: tpu}[type(result)]
    if as_json:
        emit(page.document_of(result).to_text())
    else:
        print_block(out_console(), page.synthesis_block(result))
