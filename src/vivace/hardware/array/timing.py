"""The clock that an element can have in an open cell library, by OpenSTA where it is installed: an external tool."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from vivace.core.errors import EnvironmentFault
from vivace.hardware.chip import tools

PACKAGE = "opensta"
"""Debian's package of the timer."""
PROGRAMS = ("sta", "opensta")
_PERIOD = 100.0
_SLACK = re.compile(r"^\s*(-?\d+\.\d+)\s+slack \((?:MET|VIOLATED)\)", re.MULTILINE)


def timer() -> Path | None:
    """The program of OpenSTA; None where it is not there."""
    found = next((path for name in PROGRAMS if (path := shutil.which(name))), None)
    return None if found is None else Path(found)


def shortest_period(program: Path, netlist: Path, top: str, library: Path, seconds: float = 120.0) -> float | None:
    """Nanoseconds of the shortest clock period of a mapped netlist: its longest path, from a register or an input that
    comes with the clock, to a register, with the register's own delay and its set-up time, and ideal wires.

    None where the library has no delays. Its unit of time must be the nanosecond, as it is in those that are looked for
    here. Raises EnvironmentFault when the program fails or tells no slack.
    """
    script = netlist.with_suffix(".tcl")
    script.write_text(
        f"read_liberty {library}\nread_verilog {netlist.name}\nlink_design {top}\n"
        f"create_clock -name clk -period {_PERIOD} [get_ports clk]\n"
        "set_input_delay 0 -clock clk [all_inputs]\nreport_checks -path_delay max -digits 4\nexit\n"
    )
    told = tools.execute(program, ["-no_splash", "-exit", script.name], seconds, netlist.parent)
    slack = _SLACK.search(told)
    if slack is None and "No paths found" in told:
        return None
    if slack is None:
        tail = "\n".join(told.splitlines()[-8:])
        raise EnvironmentFault(f"{program.name} told no slack of {top}:\n{tail}")
    return round(_PERIOD - float(slack[1]), 4)
