"""`vivace quantum TARGET`: a layer as quantum computation: resources, break-even, verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vivace.cli.options import Json, Quiet
from vivace.cli.output import document_only, emit, out_console, progress_shown
from vivace.core.errors import Cancelled


def quantum(
    target: Annotated[
        str,
        typer.Argument(
            help="path/to/file.py:name, where name is a Workload or a function that returns one; or a model file "
            "(.onnx, .pt2, .keras).",
            metavar="TARGET",
        ),
    ],
    layer: Annotated[
        str | None,
        typer.Option("--layer", help="A linear layer, by its name or a pattern. Default: the largest.", metavar="NAME"),
    ] = None,
    machine: Annotated[
        str, typer.Option("--machine", help="Whose gates, pairs and noise circuits also run with.", metavar="NAME")
    ] = "ibm-aachen",
    error: Annotated[
        float, typer.Option("--error", help="Standard error of each inner product, as a share of both norms.")
    ] = 1 / 256,
    elements: Annotated[
        int, typer.Option("--elements", help="The most numbers in a slice that is simulated: 1 to 64.")
    ] = 64,
    outputs: Annotated[int, typer.Option("--outputs", help="How many outputs of the layer are simulated.")] = 4,
    shots: Annotated[int, typer.Option("--shots", help="How often each circuit runs in the simulator.")] = 4096,
    stages: Annotated[int, typer.Option("--stages", help="Pipeline stages that the model is cut into.")] = 2,
    times: Annotated[
        Path | None,
        typer.Option(
            "--times",
            help="Times for the choice of precisions, a JSON file, instead of measured ones: layers and precisions "
            "(names), seconds [layer][precision], and switch_seconds [place][before][after] in seconds, where places "
            "are before the first layer, between two, and after the last.",
            metavar="FILE",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of shots and searches: the same one gives the same counts.")] = 0,
    max_qubits: Annotated[int, typer.Option("--max-qubits", help="The most qubits that are simulated.")] = 20,
    max_memory: Annotated[
        float, typer.Option("--max-memory", help="The most memory of a simulation, in GB (10^9 bytes).")
    ] = 2.1474836480,
    max_seconds: Annotated[
        float, typer.Option("--max-seconds", help="The most seconds that one simulation is expected to take.")
    ] = 120.0,
    out: Annotated[
        Path | None, typer.Option("--out", help="Receives quantum.json and report.html.", metavar="DIR")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say what a layer would take as quantum computation: it is slower than this processor, and this says by how much.

    The first line is the verdict. Circuits run on a simulator (SIMULATED), resources and times on quantum machines are
    PREDICTED, the classical time is MEASURED here. No speed-up is claimed anywhere.

    Examples:

      vivace quantum work.py:digits

      vivace quantum model.onnx --layer "head*" --machine ibm-torino --out quantum

      vivace quantum work.py:digits --times times.json --json
    """
    from vivace.report.quantum_page.block import quantum_block
    from vivace.report.quantum_page.document import quantum_document
    from vivace.report.terminal import print_block

    with document_only(as_json), progress_shown(quiet) as progress:
        from vivace.api import quantum as compute
        from vivace.quantum.limits import SimulationLimits

        limits = SimulationLimits(max_qubits, max_memory * 1e9, max_seconds)
        try:
            found = compute(
                target, layer, machine=machine, error=error, elements=elements, outputs=outputs, shots=shots,
                stages=stages, times=times, seed=seed, limits=limits, out=out, progress=progress,
            )  # fmt: skip
        except KeyboardInterrupt:
            raise Cancelled("cancelled; nothing was written") from None
    document = quantum_document(found)
    if as_json:
        emit(document.to_text())
    else:
        print_block(out_console(), quantum_block(document))
