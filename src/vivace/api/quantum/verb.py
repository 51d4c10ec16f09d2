"""`vv.quantum`: a model's layer as quantum computation, with the verdict beside the classical time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vivace.api.quantum import choices
from vivace.api.quantum.reading import ReadModel, read_model
from vivace.api.quantum.timing import LayerTimes, timed
from vivace.artifact.manifest import MANIFEST
from vivace.core.errors import UsageError
from vivace.core.workload import Workload
from vivace.devices.machine import detect
from vivace.measure import environment
from vivace.measure.process import Limits
from vivace.quantum import extra
from vivace.quantum.choices.answer import Comparison
from vivace.quantum.layers.estimate import MOST_ELEMENTS, Row, Simulation, kept_signal, simulated
from vivace.quantum.layers.overlap import OverlapTest
from vivace.quantum.limits import STANDARD, SimulationLimits
from vivace.quantum.machines import QuantumMachine, machine, machines, physical_qubits
from vivace.quantum.resources.break_even import LayerEstimate, layer_estimate, verdict
from vivace.quantum.resources.logical import ERROR, Work, shots_for
from vivace.quantum.result import LayerShape, QuantumResult
from vivace.quantum.simulator import SHOTS
from vivace.quantum.words import entanglement
from vivace.quantum.words.demonstration import Demonstration, Runner
from vivace.quantum.words.parallel_oracle import parallel_oracle
from vivace.quantum.words.superposition import superposition
from vivace.report.progress import Progress, SilentProgress
from vivace.report.quantum_page.files import write_run
from vivace.report.results import RESULTS
from vivace.report.training import RUN

MACHINE = "ibm-aachen"
OUTPUTS = 4
MOST_SLICES = 32
"""Slices of all outputs together; longer rows are simulated in part."""
NOISY_SWAP_ELEMENTS = 16
LIMITS = Limits(load=300)


def quantum(
    target: Workload | str | Path,
    layer: str | None = None,
    *,
    machine: str = MACHINE,
    error: float = ERROR,
    elements: int = MOST_ELEMENTS,
    outputs: int = OUTPUTS,
    shots: int = SHOTS,
    stages: int = 2,
    times: str | Path | Mapping[str, Any] | None = None,
    seed: int = 0,
    limits: SimulationLimits = STANDARD,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> QuantumResult:
    """What a layer of a model, and the model, would be as quantum computation: it is slower, and this says by how much.

    Some `outputs` of the `layer` (the one with the most multiplications, unless one is named) are computed by Hadamard
    and swap tests on the simulator, in slices of at most `elements` numbers (64 is the most), with `shots` each:
    ideally, and with the noise, gates and pairs of a `machine` of the catalogue. Resources are predicted for every
    machine at a standard `error` of each inner product in units of both norms, and held against the classical time,
    which is measured here on one thread. The search's own choices, a precision for each layer and `stages` of a
    pipeline, are solved exactly, by annealing and by circuits, from measured times or given ones (`times`: see `vivace
    quantum --help`).

    `limits` bound what may be simulated; what is beyond them is refused with the numbers. `out` receives quantum.json
    and its page report.html. The same seed gives the same circuits and counts.

    Raises UsageError for what cannot be used, and MissingExtra where qiskit or qiskit-aer is not installed.

    >>> found = vv.quantum(work, error=0.01)  # doctest: +SKIP
    >>> found.verdict.slower > 1  # doctest: +SKIP
    True
    """
    extra.require()
    noisy, progress = _asked(machine, error, outputs, stages), progress or SilentProgress()
    folder = None if out is None else _destination(Path(out))
    choice = None if times is None else choices.given(times)
    progress.stage("read", "the model's linear layers")
    model = read_model(target)
    chosen = model.layer(layer)
    before = environment.snapshot()
    progress.stage("measure", f"{len(model.layers)} layers on one thread")
    measured = timed(model.layers, LIMITS)
    progress.stage("simulate", f"{chosen.label}: Hadamard and swap tests")
    rows, notes = _rows(chosen, outputs, elements)
    runs, refused = _simulations(rows, elements, shots, seed, noisy, limits)
    progress.stage("predict", f"{len(machines())} machines")
    estimates = _estimates(model, error, measured)
    progress.stage("choose", "exactly, by annealing, by circuits")
    compared = _choices(choice, model, measured, stages, seed, limits)
    progress.stage("show", "superposition, oracle, Bell, GHZ, CHSH")
    words, unshown = _words(Runner(shots, seed, limits=limits), noisy)
    result = QuantumResult(
        model.name, chosen.label, tuple(_shape(one) for one in model.layers),
        tuple(runs), tuple(_signals(runs)), estimates,
        verdict([one for one in estimates if one.work.layer == chosen.label]), verdict(estimates),
        tuple(compared), tuple(words), (*refused, *unshown), (*model.notes, *notes),
        _conditions(before, measured, machine, seed, limits, error),
    )  # fmt: skip
    return result if folder is None else write_run(result, folder)


def _destination(out: Path) -> Path:
    """Where the run goes. Raises UsageError for what is no folder, or holds another verb's run."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"out (--out) is {out}, which is a file; give a folder, which is made if it is not there")
    taken = next((name for name in (MANIFEST, RESULTS, RUN) if (out / name).exists()), None)
    if taken is not None:
        raise UsageError(f"out (--out) is {out}, which holds the {taken} of another run; give another folder")
    return out


def _asked(name: str, error: float, outputs: int, stages: int) -> QuantumMachine:
    """The machine whose noise is asked for, after all numbers are checked."""
    shots_for(error)
    if isinstance(outputs, bool) or not isinstance(outputs, int) or outputs < 1:
        raise UsageError(f"outputs is {outputs!r}; allowed is a whole number of 1 or more")
    if isinstance(stages, bool) or not isinstance(stages, int) or stages < 2:
        raise UsageError(f"stages is {stages!r}; allowed is a whole number of 2 or more")
    return machine(name)


def _rows(layer: Any, outputs: int, elements: int) -> tuple[list[Row], list[str]]:
    """Some outputs of a layer, spread over all of them, with the inputs that they meet at spread positions."""
    if not 1 <= elements <= MOST_ELEMENTS:
        raise UsageError(f"elements is {elements}; allowed are slices of 1 to {MOST_ELEMENTS} numbers")
    slices = -(-layer.elements // elements)
    count = max(1, min(outputs, layer.outputs, MOST_SLICES // slices))
    kept = min(layer.elements, MOST_SLICES * elements)
    rows = []
    for number in range(count):
        place = (number * layer.outputs // count, number * layer.positions // count)
        weights, inputs, bias = layer.row(*place)
        rows.append(Row(place, weights[:kept], inputs[:kept], bias if kept == layer.elements else 0.0))
    notes = []
    if kept < layer.elements:
        notes.append(
            f"of each row of {layer.label} the first {kept} of {layer.elements} products are simulated, without the "
            "bias"
        )
    if kept > NOISY_SWAP_ELEMENTS:
        notes.append(
            f"under noise the swap test, which has two registers, is simulated for the first {NOISY_SWAP_ELEMENTS} "
            "numbers"
        )
    return rows, notes


def _simulations(
    rows: Sequence[Row], elements: int, shots: int, seed: int, noisy: QuantumMachine, limits: SimulationLimits
) -> tuple[list[Simulation], list[str]]:
    """Both tests, ideal and under noise, and why one was not run. The swap test under noise gets small slices: it has
    two registers, and its noise takes a run a shot."""
    few = NOISY_SWAP_ELEMENTS
    small = [dataclasses.replace(row, weights=row.weights[:few], inputs=row.inputs[:few]) for row in rows]
    asked: list[tuple[Sequence[Row], OverlapTest, QuantumMachine | None]] = [
        (rows, OverlapTest.HADAMARD, None),
        (rows, OverlapTest.SWAP, None),
        (rows, OverlapTest.HADAMARD, noisy),
        (small, OverlapTest.SWAP, noisy),
    ]
    found, refused = [], []
    for some, test, disturbed in asked:
        try:
            found.append(
                simulated(some, test, elements=elements, shots=shots, seed=seed, machine=disturbed, limits=limits)
            )
        except UsageError as error:
            where = "" if disturbed is None else f" under the noise of {disturbed.name}"
            refused.append(f"the {test.value} test{where} was not simulated: {error}")
    return found, refused


def _signals(runs: Sequence[Simulation]) -> list[float | None]:
    """By which factor noise shrinks overlaps; None for an ideal run, and for a swap test, whose absolute values noise
    also raises."""
    return [kept_signal(run) if run.machine and run.test is OverlapTest.HADAMARD else None for run in runs]


def _estimates(model: ReadModel, error: float, measured: LayerTimes) -> tuple[LayerEstimate, ...]:
    known: dict[Any, Any] = {}
    return tuple(
        layer_estimate(
            Work(layer.label, layer.products, layer.elements),
            list(machines().values()), physical_qubits(), error, row[0], known,
        )
        for layer, row in zip(model.layers, measured.seconds, strict=True)
    )  # fmt: skip


def _choices(
    choice: Any, model: ReadModel, measured: LayerTimes, stages: int, seed: int, limits: SimulationLimits
) -> list[Comparison]:
    basis = "MEASURED" if choice is None else "given"
    if choice is None:
        choice = choices.measured([layer.label for layer in model.layers], measured)
    return choices.solved(choice, stages, basis, seed, limits)


def _words(ideal: Runner, noisy: QuantumMachine) -> tuple[list[Demonstration], list[str]]:
    """Every demonstration on an ideal machine, and CHSH also under noise; and why one was not run."""
    shows: list[tuple[str, Callable[[Runner], Demonstration], Runner]] = [
        ("superposition", superposition, ideal), ("the oracle", parallel_oracle, ideal),
        ("the Bell pair", entanglement.bell, ideal), ("the GHZ state", entanglement.ghz, ideal),
        ("CHSH", entanglement.chsh, ideal),
        (f"CHSH under the noise of {noisy.name}", entanglement.chsh, dataclasses.replace(ideal, machine=noisy)),
    ]  # fmt: skip
    found, refused = [], []
    for name, show, runner in shows:
        try:
            found.append(show(runner))
        except UsageError as error:
            refused.append(f"{name} was not shown: {error}")
    return found, refused


def _shape(layer: Any) -> LayerShape:
    return LayerShape(layer.label, layer.layer.operator, layer.outputs, layer.elements, layer.positions)


def _conditions(
    before: Mapping[str, Any], measured: LayerTimes, name: str, seed: int, limits: SimulationLimits, error: float
) -> dict[str, Any]:
    here = environment.snapshot()
    known = machine(name)
    return {
        **here,
        "machine": detect().to_json(),
        "versions": {**here["versions"], **extra.versions()},
        "disturbance": environment.disturbance(before, here),
        "classical_threads": 1,
        "classical_calls": measured.calls,
        "noise": f"{known.name}: {known.source}, {known.date}",
        "seed": seed,
        "numpy": np.__version__,
        "limits": dataclasses.asdict(limits),
        "error": error,
    }
