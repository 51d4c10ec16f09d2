"""The proof: the design compiled by CXXRTL and a C++ compiler, run on every vector, compared with the golden model."""

from __future__ import annotations

import dataclasses
import importlib.resources
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vivace.core.documents import strict_json
from vivace.core.errors import EnvironmentFault, ProofFailed
from vivace.hardware.chip import tools
from vivace.hardware.graph import golden
from vivace.hardware.graph.integer import Array
from vivace.hardware.proof.vectors import Vectors
from vivace.hardware.rtl.schedule import Schedule
from vivace.hardware.rtl.top import TOP, Design

ALONE = 16
"""Vectors that are run one by one, to count the cycles of each."""
PAUSED = 256
"""Vectors that are run again with pauses drawn at random at both ends."""
TRACED = 64
"""Vectors whose every stream is compared, not only the output."""
_SPLIT_WORDS = 1 << 24


@dataclasses.dataclass(frozen=True)
class Proof:
    """What the simulation found: no difference in `vectors` vectors, of which so many were real, corners and random.

    `latency` is the cycles of a vector alone, equal to the schedule's; `interval` the mean distance of vectors that
    come back to back, from `shortest_interval` to `longest_interval`. `paused` vectors ran again with random pauses,
    `traced` were compared after every layer. `cycles` were simulated. `speed` in cycles a second is the caller's to
    know.
    """

    vectors: int
    real: int
    corner: int
    random: int
    latency: int
    interval: float
    shortest_interval: int
    longest_interval: int
    traced: int
    paused: int
    cycles: int


@dataclasses.dataclass(frozen=True)
class Simulator:
    """A compiled design, in its folder."""

    design: Design
    program: Path

    def prove(self, vectors: Vectors, schedule: Schedule, seconds: float = 600.0) -> Proof:
        """Run all vectors and compare each element with the golden model, and the cycles with the schedule.

        Raises ProofFailed for the first difference, with the vector, the layer and the cycle; or when the cycles of a
        vector alone differ from the schedule's.
        """
        graph = self.design.plan.graph
        outputs = golden.run(graph, vectors.inputs)
        found = self._run(vectors.inputs, outputs, (min(ALONE, len(vectors)), min(PAUSED, len(vectors))), seconds)
        if found["mismatch"]:
            raise ProofFailed(self._difference(found, vectors.inputs, outputs, seconds))
        if not found["moved"]:
            raise ProofFailed(
                f"the design stopped moving in cycle {found['cycle']}, after {found['given']} elements had gone in and "
                f"{found['taken']} had come out; nothing was proved"
            )
        if (found["least_latency"], found["most_latency"]) != (schedule.latency, schedule.latency):
            raise ProofFailed(
                f"a vector alone takes {found['least_latency']} to {found['most_latency']} cycles, and the schedule "
                f"says {schedule.latency}; the results are equal, the times in a report would not be"
            )
        return Proof(
            len(vectors), vectors.real, vectors.corner, vectors.random, found["most_latency"], found["interval"],
            found["shortest_interval"], found["longest_interval"], min(TRACED, len(vectors)),
            min(PAUSED, len(vectors)), found["cycles"],
        )  # fmt: skip

    def _run(self, inputs: Array, outputs: Array, passes: tuple[int, int], seconds: float) -> dict[str, Any]:
        plan, folder = self.design.plan, self.program.parent
        _write(folder / "inputs.bin", plan.stream(inputs, 0))
        last = len(plan.stages)
        _write(folder / "outputs.bin", plan.stream(outputs, last))
        traced = min(TRACED, len(inputs))
        values = golden.run_all(plan.graph, inputs[:traced])
        for stream in range(1, last):
            _write(folder / f"trace_{stream}.bin", plan.stream(values[plan.values[stream]], stream))
        arguments = [str(number) for number in (len(inputs), *passes, traced, 0)]
        found = strict_json.loads(tools.execute(self.program, arguments, seconds))
        if not isinstance(found, dict):
            raise EnvironmentFault("the simulator gave no result")
        return found

    def _difference(self, found: dict[str, Any], inputs: Array, outputs: Array, seconds: float) -> str:
        """The first difference as a sentence; one that showed at the output alone is followed back to its layer."""
        vector = found["vector"]
        last = len(self.design.plan.stages)
        at = found
        if found["stream"] == last and vector >= TRACED:
            around = slice(max(0, vector - 1), vector + 1)
            again = self._run(inputs[around], outputs[around], (0, 0), seconds)
            at = again if again["mismatch"] else found
        stage = self.design.plan.stages[at["stream"] - 1]
        return (
            f"the design does not compute what the golden model does: vector {vector}, layer {stage.name}, element "
            f"{at['element']} of its stream, cycle {found['cycle']}: expected {at['expected']}, received "
            f"{at['received']} (as unsigned bits); nothing was proved, and no report is written"
        )


def build(design: Design, folder: Path, seconds: float = 300.0) -> Simulator:
    """Compile a design into a simulator in a folder of its own.

    `prep` comes first, always: without it, CXXRTL reads some Verilog registers a cycle late. Raises MissingExtra where
    Yosys is not installed, EnvironmentFault where there is no C++ compiler or either fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    headers = tools.cxxrtl_headers()
    for name, text in design.files.items():
        (folder / name).write_text(text)
    script = (
        f"read_verilog -DVIVACE_TRACE {' '.join(design.modules)}; prep -top {TOP} -flatten; write_cxxrtl -g0 design.cc"
    )
    tools.run(tools.YOSYS, ["-q", "-p", script], folder, seconds)
    harness = importlib.resources.files("vivace.hardware.proof") / "harness.cc"
    (folder / "harness.cc").write_text(harness.read_text(encoding="utf-8"))
    (folder / "bench.h").write_text(_bench(design))
    tools.compile_cpp(folder / "harness.cc", folder / "simulate", headers, seconds)
    return Simulator(design, folder / "simulate")


def clean(simulator: Simulator) -> None:
    """Remove a simulator's folder."""
    shutil.rmtree(simulator.program.parent, ignore_errors=True)


def _bench(design: Design) -> str:
    plan = design.plan
    streams = range(len(plan.stages) + 1)
    values = [plan.value(stream) for stream in streams]
    longest = max(value.elements for value in values)
    patience = 1000 + 64 * longest + sum(_slowest(design))
    return f"""#include <string>
constexpr int STREAMS = {len(values)};
constexpr long ELEMENTS[] = {_listed(value.elements for value in values)};
constexpr uint32_t MASKS[] = {_listed((1 << value.format.bits) - 1 for value in values)};
constexpr long PATIENCE = {patience};
"""


def _slowest(design: Design) -> Sequence[int]:
    """Cycles that each engine may take for one row of outputs."""
    return [16 * engine.steps * len(engine.lane_groups) * engine.value.shape[2] for _, engine in design.plan.engines]


def _listed(numbers: Any) -> str:
    return "{" + ", ".join(str(number) for number in numbers) + "}"


def _write(path: Path, numbers: Array) -> None:
    """16-bit words, in blocks, so that a large array is not copied whole."""
    rows = max(1, _SPLIT_WORDS // max(1, numbers.shape[1]))
    with path.open("wb") as file:
        for start in range(0, len(numbers), rows):
            file.write((numbers[start : start + rows] & 0xFFFF).astype(np.uint16).tobytes())
