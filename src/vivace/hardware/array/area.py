"""Gates of the processing element by Yosys' generic cells; its area and its clock where a library is installed."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vivace.core.documents import strict_json
from vivace.core.errors import EnvironmentFault
from vivace.hardware.array import timing
from vivace.hardware.array.chip import Chip, Dataflow
from vivace.hardware.array.verilog import TOP, lane_bits, verilog_of
from vivace.hardware.chip import tools

ELEMENT = "vivace_element"
MAPPED = "mapped.v"
LIBRARIES = {
    "qflow-tech-osu018": Path("/usr/share/qflow/tech/osu018/osu018_stdcells.lib"),
    "qflow-tech-osu035": Path("/usr/share/qflow/tech/osu035/osu035_stdcells.lib"),
    "qflow-tech-osu050": Path("/usr/share/qflow/tech/osu050/osu050_stdcells.lib"),
}
"""Debian's packages of open cell libraries, and where each puts its file."""
TRANSISTORS = {
    "NOT": 2, "NAND": 4, "NOR": 4, "AND": 6, "OR": 6, "XOR": 12, "XNOR": 12, "MUX": 12, "AOI3": 6, "OAI3": 6, "AOI4": 8,
    "OAI4": 8, "DFF": 16, "DFFE": 28,
}  # fmt: skip
"""Of Yosys' generic cells, as its own `stat -tech cmos` counts them; a flip-flop that can hold is one with a choice."""
_GATES = "abc -g AND,NAND,OR,NOR,XOR,XNOR,MUX,AOI3,OAI3,AOI4,OAI4"


@dataclasses.dataclass(frozen=True)
class Area:
    """One element: cells by kind, flip-flops, and gates, which are transistors over 4: that of a NAND of two inputs.

    `square_micrometres` is the element's area in `library`, the package it comes from, and `nanoseconds` its shortest
    clock period there, wires left out; None, and an empty name, where what tells them is not installed.
    """

    cells: Mapping[str, int]
    flip_flops: int
    gates: float
    library: str = ""
    square_micrometres: float | None = None
    nanoseconds: float | None = None


KNOWN: Mapping[tuple[Dataflow, bool], Area] = {
    (Dataflow.OUTPUT, False): Area({}, 82, 2147.0), (Dataflow.OUTPUT, True): Area({}, 108, 2307.0),
    (Dataflow.WEIGHT, False): Area({}, 49, 1901.5), (Dataflow.WEIGHT, True): Area({}, 75, 2086.5),
    (Dataflow.INPUT, False): Area({}, 49, 1820.5), (Dataflow.INPUT, True): Area({}, 75, 2022.5),
}  # fmt: skip
"""The elements of these templates as Yosys 0.70 counts them, for predictions that need no tools; a test compares."""


def area_of(chip: Chip, folder: Path, seconds: float = 120.0, libraries: Mapping[str, Path] = LIBRARIES) -> Area:
    """Synthesize the element of a chip and count. The library, where there is one, is read where it is.

    Raises MissingExtra where Yosys is not installed, EnvironmentFault when it fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{TOP}.v").write_text(verilog_of(chip))
    cells = _stat(chip, f"{_GATES}; opt_clean", "", folder, seconds)["num_cells_by_type"]
    counts = {_kind(name): int(count) for name, count in sorted(cells.items())}
    unknown = counts.keys() - TRANSISTORS.keys()
    if unknown:
        raise EnvironmentFault(f"Yosys gave cells that are not counted here: {', '.join(sorted(unknown))}")
    gates = sum(TRANSISTORS[kind] * count for kind, count in counts.items()) / 4
    area = Area(counts, counts.get("DFF", 0) + counts.get("DFFE", 0), gates)
    found = next(((name, path) for name, path in libraries.items() if path.is_file()), None)
    if found is None:
        return area
    name, path = found
    # relative, because Yosys from a wheel has a folder for temporary files of its own in the place of the machine's
    near = Path(os.path.relpath(path.resolve(), folder.resolve()))
    mapped = f"dfflibmap -liberty {near}; abc -liberty {near}; opt_clean; write_verilog -noattr {MAPPED}"
    measured = float(_stat(chip, mapped, f"-liberty {near}", folder, seconds)["area"])
    program = timing.timer()
    period = (
        None if program is None
        else timing.shortest_period(program, folder / MAPPED, ELEMENT, path.resolve(), seconds)
    )  # fmt: skip
    return dataclasses.replace(area, library=name, square_micrometres=measured, nanoseconds=period)


def advice(area: Area) -> str:
    """What is missing for an area in square micrometres and for a clock; empty where nothing is."""
    if area.square_micrometres is None:
        return (
            "no open cell library is installed, so area is in gates only, and the clock is an assumption; on Debian "
            f"and Ubuntu: apt-get install {next(iter(LIBRARIES))} {timing.PACKAGE}"
        )
    if area.nanoseconds is None:
        return (
            "no timer is installed, so the clock is an assumption; on Debian and Ubuntu: apt-get install "
            f"{timing.PACKAGE}"
        )
    return ""


def array_gates(chip: Chip, element: Area) -> float:
    """Gates of the whole array: its elements, and the registers that delay what enters at its edges.

    PREDICTED from the element; the sequencer's few hundred gates are left out, and so are the memories.
    """
    moving, resting = lane_bits(chip)
    top = resting if chip.dataflow is Dataflow.OUTPUT else 32
    valid = 2 if chip.dataflow is Dataflow.OUTPUT else 1
    delayed = chip.rows * (chip.rows - 1) / 2 * (moving + valid) + chip.columns * (chip.columns - 1) / 2 * top
    return chip.elements * element.gates + delayed * TRANSISTORS["DFF"] / 4


def _stat(chip: Chip, mapping: str, options: str, folder: Path, seconds: float) -> dict[str, Any]:
    moving, resting = lane_bits(chip)
    script = (
        f"read_verilog {TOP}.v; chparam -set MOVING {moving} -set RESTING {resting} {ELEMENT}; "
        f"synth -top {ELEMENT} -flatten; {mapping}; tee -q -o stat.json stat -json {options}"
    )
    tools.run(tools.YOSYS, ["-q", "-p", script], folder, seconds)
    text = (folder / "stat.json").read_text(encoding="utf-8")
    document = strict_json.loads(text[text.index("{") :])
    found = document.get("design") if isinstance(document, dict) else None
    if not isinstance(found, dict):
        raise EnvironmentFault("Yosys counted nothing; see that its version is 0.40 or newer")
    return found


def _kind(cell: str) -> str:
    """The kind of a generic cell: $_DFFE_PP_ is a DFFE.

    >>> _kind("$_DFFE_PP_"), _kind("$_XNOR_")
    ('DFFE', 'XNOR')
    """
    return cell.strip("$_").split("_")[0]
