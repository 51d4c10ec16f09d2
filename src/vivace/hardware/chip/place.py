"""Synthesis by Yosys, placing and routing by nextpnr with several seeds, and a bitstream by the packers."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from vivace.core.documents import strict_json
from vivace.core.errors import EnvironmentFault
from vivace.hardware.chip import tools
from vivace.hardware.chip.parts import Part
from vivace.hardware.chip.tools import Tool
from vivace.hardware.rtl.top import TOP, Design

TARGET_MHZ = 150
_SECONDS_A_CELL = 0.008
_LARGE_CELLS = 3000
_GROWTH = 0.7


@dataclasses.dataclass(frozen=True)
class Resources:
    """What a netlist takes: 4-input tables (carries and memories of tables among them), flip-flops, multipliers, memory
    blocks. `cells` are the logic cells that a placer has to place."""

    tables: int
    flip_flops: int
    multipliers: int
    memory_blocks: int
    cells: int


@dataclasses.dataclass(frozen=True)
class Placement:
    """Places and routes of one design with several seeds: the highest clock frequency of each, in MHz, by seed.

    `used` and `available` are what the placer counted, by its own names of resources. `critical_path` names the ends
    of the slowest path of the median seed.
    """

    seeds: tuple[int, ...]
    megahertz: tuple[float, ...]
    used: Mapping[str, int]
    available: Mapping[str, int]
    critical_path: str

    @property
    def median(self) -> float:
        """The median frequency, in MHz."""
        return statistics.median(self.megahertz)

    @property
    def median_seed(self) -> int:
        """The seed whose frequency is nearest to the median."""
        return min(zip(self.seeds, self.megahertz, strict=True), key=lambda pair: abs(pair[1] - self.median))[0]


def placing_seconds(cells: int) -> float:
    """How long one seed is likely to take on one core, by cells: fitted to runs of nextpnr's WebAssembly build, with
    half as much again for what else the machine does.

    Runs of 2,689, 3,322, 3,917 and 4,257 cells took 16, 23, 24 and 29 s a seed; one of 19,890 was not done after 500 s.

    >>> placing_seconds(2000) < 60 < placing_seconds(40000)
    True
    """
    growth: float = max(1.0, cells / _LARGE_CELLS) ** _GROWTH
    return 3.0 + _SECONDS_A_CELL * cells * growth


def cells_within(seconds: float) -> int:
    """The most cells whose placing is likely to end in so many seconds."""
    low, high = 0, 1 << 20
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if placing_seconds(middle) <= seconds else (low, middle - 1)
    return low


def synthesize(design: Design, part: Part, folder: Path, seconds: float) -> Resources:
    """Write a design to a folder and synthesize it there: netlist.json. Raises MissingExtra, EnvironmentFault."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in design.files.items():
        (folder / name).write_text(text)
    flow = f"synth_ecp5 -abc9 -top {TOP}" if part.family == "ecp5" else f"synth_ice40 -abc9 -device hx -top {TOP}"
    script = f"read_verilog {' '.join(design.modules)}; {flow} -json netlist.json; tee -q -o statistics.json stat -json"
    tools.run(tools.YOSYS, ["-q", "-p", script], folder, seconds)
    counted = strict_json.loads((folder / "statistics.json").read_text(encoding="utf-8"))
    return _resources(counted["design"]["num_cells_by_type"])


def place(part: Part, folder: Path, seeds: Sequence[int], seconds: float, pool: Executor) -> Placement:
    """Place and route the netlist in a folder, once a seed, as many at a time as the pool runs.

    Raises EnvironmentFault. A design that does not fit fails there with what nextpnr says of it.
    """
    write_constraints(part, folder)
    reports = list(pool.map(lambda seed: _place_one(part, folder, seed, seconds), seeds))
    megahertz = [_frequency(report) for report in reports]
    first = reports[0].get("utilization", {})
    found = Placement(
        tuple(seeds), tuple(megahertz),
        {name: int(entry["used"]) for name, entry in first.items() if entry["used"]},
        {name: int(entry["available"]) for name, entry in first.items() if entry["used"]},
        "",
    )  # fmt: skip
    median = reports[list(seeds).index(found.median_seed)]
    return dataclasses.replace(found, critical_path=_critical_path(median))


def write_constraints(part: Part, folder: Path) -> Path:
    """The constraints file of a part: the clock, and where pins would be assigned."""
    if part.family == "ecp5":
        path = folder / "vivace.lpf"
        path.write_text(
            f'FREQUENCY PORT "clk" {TARGET_MHZ} MHZ;\n'
            '# Pins are free; assign your board\'s, such as:\n# LOCATE COMP "clk" SITE "G2";\n'
            '# IOBUF PORT "clk" IO_TYPE=LVCMOS33;\n'
        )
    else:
        path = folder / "vivace.pcf"
        path.write_text(
            f"set_frequency clk {TARGET_MHZ}\n# Pins are free; assign your board's, such as:\n# set_io clk J3\n"
        )
    return path


def pack(part: Part, folder: Path, seed: int, seconds: float) -> Path | None:
    """The bitstream of one placed seed; None where there is no packer here."""
    tool, source, product = _packer(part, seed)
    if tool.command() is None:
        return None
    arguments = ["--compress", source, product] if part.family == "ecp5" else [source, product]
    tools.run(tool, arguments, folder, seconds)
    return folder / product


def placer(part: Part) -> Tool:
    """The tool that places for a part."""
    return tools.NEXTPNR_ECP5 if part.family == "ecp5" else tools.NEXTPNR_ICE40


def _packer(part: Part, seed: int) -> tuple[Tool, str, str]:
    if part.family == "ecp5":
        return tools.ECPPACK, f"placed_{seed}.config", "vivace.bit"
    return tools.ICEPACK, f"placed_{seed}.asc", "vivace.bin"


def _place_one(part: Part, folder: Path, seed: int, seconds: float) -> dict[str, Any]:
    constraints = {"ecp5": ["--lpf", "vivace.lpf", "--lpf-allow-unconstrained"],
                   "ice40": ["--pcf", "vivace.pcf", "--pcf-allow-unconstrained"]}[part.family]  # fmt: skip
    product = {"ecp5": ["--textcfg", f"placed_{seed}.config"], "ice40": ["--asc", f"placed_{seed}.asc"]}[part.family]
    arguments = [
        *part.options, "--json", "netlist.json", *constraints, *product, "--report", f"report_{seed}.json",
        "--seed", str(seed), "--freq", str(TARGET_MHZ), "--timing-allow-fail", "--quiet",
    ]  # fmt: skip
    tools.run(placer(part), arguments, folder, seconds)
    found = strict_json.loads((folder / f"report_{seed}.json").read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise EnvironmentFault("nextpnr wrote no report")
    return found


def _frequency(report: Mapping[str, Any]) -> float:
    clocks = [float(clock["achieved"]) for clock in report.get("fmax", {}).values()]
    if not clocks:
        raise EnvironmentFault("nextpnr reported no clock; the design has no registers on it")
    return min(clocks)


def _critical_path(report: Mapping[str, Any]) -> str:
    """The ends of the slowest path from one register to another."""
    for path in report.get("critical_paths", []):
        steps = path.get("path", [])
        if steps and "async" not in f"{path.get('from')}{path.get('to')}":
            first, last = steps[0].get("from", {}), steps[-1].get("to", {})
            return f"{first.get('cell', '?')} to {last.get('cell', '?')}"
    return ""


_COUNTED: dict[str, Callable[[Mapping[str, int]], int]] = {
    "tables": lambda n: (
        n.get("LUT4", 0) + 2 * n.get("CCU2C", 0) + 4 * n.get("TRELLIS_DPR16X4", 0) + n.get("SB_LUT4", 0)
    ),
    "flip_flops": lambda n: sum(count for name, count in n.items() if name.startswith(("TRELLIS_FF", "SB_DFF"))),
    "multipliers": lambda n: n.get("MULT18X18D", 0),
    "memory_blocks": lambda n: n.get("DP16KD", 0) + n.get("PDPW16KD", 0) + n.get("SB_RAM40_4K", 0),
}


def _resources(counts: Mapping[str, int]) -> Resources:
    found = {name: count(counts) for name, count in _COUNTED.items()}
    carries = counts.get("SB_CARRY", 0)
    return Resources(**found, cells=max(found["tables"] + carries // 4, found["flip_flops"]))
