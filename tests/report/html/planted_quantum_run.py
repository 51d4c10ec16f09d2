"""Made-up documents of quantum runs for the page: a rich one with every figure filled, one without, a hostile one."""

from __future__ import annotations

from typing import Any

from planted_results import HOSTILE

from vivace.core.measurement import Interval
from vivace.quantum.choices.answer import Answer, Comparison, Found
from vivace.quantum.layers.estimate import OutputEstimate, Simulation, SliceEstimate
from vivace.quantum.layers.overlap import OverlapTest
from vivace.quantum.machines import machines
from vivace.quantum.picture import Picture, PlacedGate
from vivace.quantum.resources.break_even import CorrectedEstimate, LayerEstimate, verdict
from vivace.quantum.resources.fault_tolerance import Factory, FaultTolerant
from vivace.quantum.resources.logical import Work, hadamard_test_counts
from vivace.quantum.resources.machine_time import MachineEstimate, ProductCircuit
from vivace.quantum.result import LayerShape, QuantumResult
from vivace.quantum.simulator import GateCounts
from vivace.quantum.words.demonstration import Demonstration, Histogram
from vivace.report.quantum_page.document import QuantumDocument, quantum_document

PICTURE = Picture(("q0", "q1"), ((PlacedGate("H", (0,)),), (PlacedGate("X", (0, 1), 1),), (PlacedGate("M", (0,)),)), 3)
FIXED = ("test", "schema_version")


def simulation(test: OverlapTest, machine: str = "", agrees: bool = True) -> Simulation:
    slices = tuple(
        SliceEstimate((place, 0), 0, 16, 2.0, value, Interval(value + 0.1, value - 0.2, value + 0.4), 900, 1024, agrees)
        for place, value in enumerate((-1.5, -0.2, 0.9))
    )
    outputs = (OutputEstimate((0, 0), -1.5, Interval(-1.4, -1.7, -1.1), 1),)
    counts = GateCounts(5, 80, 45, 120, 1)
    return Simulation(test, machine, 1024, 0, slices, outputs, counts, GateCounts(5, 60, 30, 32, 1), PICTURE)


def estimate(label: str, products: int, seconds: float | None = 2e-6) -> LayerEstimate:
    first, second = list(machines())[:2]
    circuit = ProductCircuit(first, 16, GateCounts(5, 80, 45, 120, 1), False, 0.31, 3e-4)
    factory = Factory(18_000, 1e-4, 2e-9, ("a",))
    run = FaultTolerant("gate-ns-e3", 320_000, 0.5, 17, 121, 1_000_000, 14, 10**6, 14, factory)
    return LayerEstimate(
        Work(label, products, 16), 0.01, hadamard_test_counts(16),
        (MachineEstimate(first, circuit, 10_000, 26, products * 3.0),
         MachineEstimate(second, None, 10_000, 0, None, "none")),
        (CorrectedEstimate("shots", 10_000, run, products * 5000.0),), seconds,
    )  # fmt: skip


def comparison() -> Comparison:
    exact = Found((0, 1), 8, "table entries")
    none = Found(None, 0, "oracle calls", "needs 40 qubits")
    sampled = Found((1, 1), 80, "circuit runs", "", 12, 1024, 0.01)
    answers = (
        Answer("dynamic programming", "EXACT", exact, "a: f32, b: bf16", 2e-5, True, 0.0, 1e-5, 1e-5),
        Answer("QAOA", "SIMULATED", sampled, "a: bf16, b: bf16", 3e-5, False, 0.5, 1.5),
        Answer("Grover minimum finding", "SIMULATED", none, "-", None, False, None, 1e-4),
    )
    used = "dynamic programming"
    return Comparison("precision of each layer", "s", ("a", "b"), 2, 4.0, "MEASURED", answers, used, "note")


def word(key: str, machine: str = "") -> Demonstration:
    counts = (Histogram("read along Z", {"00": 512, "11": 512}),)
    return Demonstration(
        key, "CHSH", "A claim.", "S", Interval(2.8, 2.7, 2.9), 2.0, 2.83, counts, PICTURE, "q0: H\nq1: -", 1024,
        machine,
        "A caution.",
    )  # fmt: skip


def rich() -> QuantumDocument:
    """Every figure filled, in a run that was kept."""
    layers = (estimate("fc1", 40), estimate("fc2", 10))
    first = next(iter(machines()))
    conditions: dict[str, Any] = {
        "machine": {"processor": "a processor", "cores_allowed": 2}, "versions": {"qiskit": "2"},
                                  "seed": 0}  # fmt: skip
    result = QuantumResult(
        "net", "fc1", (LayerShape("fc1", "linear", 10, 16, 4), LayerShape("fc2", "linear", 10, 16, 1)),
        (simulation(OverlapTest.HADAMARD), simulation(OverlapTest.SWAP),
         simulation(OverlapTest.HADAMARD, first, False)),
        (None, None, 0.6), layers, verdict(layers[:1]), verdict(layers), (comparison(), comparison()),
        (word("bell"), word("chsh", first)), ("the swap test was not simulated",), ("attention is left out",),
        conditions,
    )  # fmt: skip
    return quantum_document(result).model_copy(update={"out": "run"})


def bare() -> QuantumDocument:
    """Nothing was simulated, timed, chosen or shown."""
    result = QuantumResult(
        "net", "fc1", (), (), (), (estimate("fc2", 10, None),), None, None, (), (), ("too large",), (), {}
    )
    return quantum_document(result)


def hostile() -> QuantumDocument:
    """The rich run with a hostile text in every string that a model, its maker or a library can choose."""
    return QuantumDocument.model_validate(_poisoned(rich().model_dump()))


def _poisoned(node: Any) -> Any:
    if isinstance(node, dict):
        return {_poisoned_key(key): value if key in FIXED else _poisoned(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_poisoned(value) for value in node]
    return f"{node} {HOSTILE}" if isinstance(node, str) else node


def _poisoned_key(key: str) -> str:
    return f"{key} {HOSTILE}" if set(key) <= {"0", "1"} else key
