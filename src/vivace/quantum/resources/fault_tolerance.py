"""Physical qubits and time of an error-corrected machine: surface code, T states from 15-to-1 distillation. PREDICTED.

Source of every formula: Beverland et al., Assessing requirements to scale to practical quantum advantage,
arXiv:2211.07629, sections III and C to F and table VI, as Microsoft's resource estimator documents and implements them
(github.com/microsoft/qsharp, resource_estimator/src/system). Nobody has built such a machine.

- Patches: Q = 2 q + ceil(sqrt(8 q)) + 1 logical qubits for q of the algorithm.
- Error of a patch in a cycle at code distance d: 0.03 (p / 0.01)^((d + 1) / 2); 2 d^2 physical qubits a patch; a cycle
  takes d (4 two-qubit gates + 2 readings).
- T gates a turn: ceil(0.53 log2(R / e) + 5.3), R turns sharing the budget e.
- Depth in cycles: readings + turns + T gates + 3 Toffolis + rotation depth x T gates a turn.
- T states: T gates + 4 Toffolis + turns x T gates a turn. A distillation unit takes 15 T states of error z to one of
  35 z^3 + 7.1 c, and fails with 15 z + 356 c, c the error of its own gates.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator

from vivace.core.errors import UsageError
from vivace.quantum.machines import PhysicalQubit
from vivace.quantum.resources.logical import LogicalCounts

BUDGET = 0.01
"""The probability that a run fails, which patches, T states and turns share alike."""
THRESHOLD, PREFACTOR = 0.01, 0.03
DISTANCES = range(3, 52, 2)
MOST_ROUNDS = 3
FACTORY_FAILURE = 0.01
"""In how many of its runs a factory may give nothing, which its rounds share alike."""
INPUT_STATES = 15


@dataclasses.dataclass(frozen=True)
class Unit:
    """A distillation unit: its qubits and its duration in cycles, on physical qubits and on patches (table VI)."""

    name: str
    physical_qubits: int
    physical_cycles: int
    patches: int
    patch_cycles: int


UNITS = (Unit("15-to-1 RM prep", 31, 24, 31, 11), Unit("15-to-1 space efficient", 12, 45, 20, 13))


@dataclasses.dataclass(frozen=True)
class Factory:
    """What makes one T state: its physical qubits, seconds a run, the error of what it gives, and its rounds in
    words."""

    qubits: int
    seconds: float
    error: float
    rounds: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class FaultTolerant:
    """One run on an error-corrected machine, PREDICTED. `seconds` is the run's time; `physical_qubits` are those of the
    patches and of `factories` that make T states side by side."""

    qubit: str
    physical_qubits: int
    seconds: float
    distance: int
    patches: int
    t_states: int
    t_per_rotation: int
    depth: int
    factories: int
    factory: Factory | None


def fault_tolerant(counts: LogicalCounts, qubit: PhysicalQubit, budget: float = BUDGET) -> FaultTolerant:
    """What one run takes. Raises UsageError for a budget outside 0 to 1, and where no distance of the code, or no
    factory, is good enough for so long a run."""
    if not 0 < budget < 1:
        raise UsageError(f"the budget of a run's failure is {budget}; allowed is above 0 and below 1, such as 0.01")
    share = budget / (3 if counts.rotations else 2)
    each = _t_per_rotation(counts.rotations, share)
    states = counts.t_gates + 4 * counts.toffolis + each * counts.rotations
    depth = (counts.readings + counts.rotations + counts.t_gates + 3 * counts.toffolis
             + each * counts.rotation_depth)  # fmt: skip
    patches = 2 * counts.qubits + math.ceil(math.sqrt(8 * counts.qubits)) + 1
    distance = _distance(qubit, share / (patches * depth))
    cycle = cycle_seconds(qubit, distance)
    factory, copies = _factories(qubit, states, share, depth * cycle) if states else (None, 0)
    seconds = max(depth * cycle, factory.seconds if factory else 0.0)
    held = patches * 2 * distance**2 + (copies * factory.qubits if factory else 0)
    return FaultTolerant(qubit.name, held, seconds, distance, patches, states, each, depth, copies, factory)


def cycle_seconds(qubit: PhysicalQubit, distance: int) -> float:
    """How long one cycle of patches of a distance takes."""
    return distance * (4 * qubit.two_qubit_seconds + 2 * qubit.readout_seconds)


def patch_error(qubit: PhysicalQubit, distance: int) -> float:
    """The probability that a patch fails in one cycle."""
    return PREFACTOR * math.pow(qubit.error / THRESHOLD, (distance + 1) / 2)


def _t_per_rotation(rotations: int, share: float) -> int:
    return math.ceil(0.53 * math.log2(rotations / share) + 5.3) if rotations else 0


def _distance(qubit: PhysicalQubit, wanted: float) -> int:
    for distance in DISTANCES:
        if patch_error(qubit, distance) <= wanted:
            return distance
    raise UsageError(
        f"no surface code up to distance {DISTANCES[-1]} of qubits {qubit.name} keeps each patch and cycle below an "
        f"error of {wanted:.1e}, which so long a run asks for; ask for a larger error"
    )


def _factories(qubit: PhysicalQubit, states: int, share: float, seconds: float) -> tuple[Factory, int]:
    """The kind of factory that takes the fewest physical qubits in all, and how many of it."""
    wanted = share / states
    best: tuple[Factory, int] | None = None
    for factory in _known_factories(qubit):
        if factory.error > wanted:
            continue
        runs = max(1, math.floor(max(seconds, factory.seconds) / factory.seconds))
        copies = math.ceil(states / runs)
        if best is None or copies * factory.qubits < best[1] * best[0].qubits:
            best = factory, copies
    if best is None:
        raise UsageError(
            f"no factory of {MOST_ROUNDS} rounds of qubits {qubit.name} makes T states with an error below "
            f"{wanted:.1e}, which so many of them ask for; ask for a larger error"
        )
    return best


@dataclasses.dataclass(frozen=True)
class _Round:
    """A unit at a code distance, 1 for bare qubits."""

    unit: Unit
    distance: int
    qubits: int
    seconds: float
    gate_error: float

    @property
    def label(self) -> str:
        return f"{self.unit.name}, {'bare qubits' if self.distance == 1 else f'distance {self.distance}'}"


@functools.cache
def _known_factories(qubit: PhysicalQubit) -> tuple[Factory, ...]:
    """Every factory of up to MOST_ROUNDS rounds with growing distance that no other beats in error, space-time and
    time."""
    partial: list[tuple[tuple[_Round, ...], float]] = [((), qubit.error)]
    found: list[Factory] = []
    for _ in range(MOST_ROUNDS):
        grown = [step for rounds, error in partial for step in _next_rounds(qubit, rounds, error)]
        found += [factory for rounds, error in grown if (factory := _factory(qubit, rounds, error)) is not None]
        partial = grown
    return tuple(_undominated(found))


def _next_rounds(
    qubit: PhysicalQubit, rounds: tuple[_Round, ...], error: float
) -> Iterator[tuple[tuple[_Round, ...], float]]:
    least = rounds[-1].distance if rounds else 0
    for unit in UNITS:
        for distance in (1, *DISTANCES[:16]):
            if distance < least or (distance == 1 and rounds):
                continue
            step = _round(qubit, unit, distance)
            output = 35 * error**3 + 7.1 * step.gate_error
            if output < error / 2 and 15 * error + 356 * step.gate_error < 1:
                yield (*rounds, step), output


def _round(qubit: PhysicalQubit, unit: Unit, distance: int) -> _Round:
    if distance == 1:
        return _Round(unit, 1, unit.physical_qubits, unit.physical_cycles * qubit.readout_seconds, qubit.error)
    seconds = unit.patch_cycles * cycle_seconds(qubit, distance)
    return _Round(unit, distance, unit.patches * 2 * distance**2, seconds, patch_error(qubit, distance))


def _factory(qubit: PhysicalQubit, rounds: tuple[_Round, ...], error: float) -> Factory | None:
    """A factory of these rounds, which use the same qubits one after the other. Each has so many units that the next
    round seldom lacks states."""
    errors = [qubit.error]
    for step in rounds[:-1]:
        errors.append(35 * errors[-1] ** 3 + 7.1 * step.gate_error)
    needed, most = 1, 0
    for step, entering in zip(reversed(rounds), reversed(errors), strict=True):
        failure = 15 * entering + 356 * step.gate_error
        if failure >= 0.5:
            return None
        units = _units(needed, failure, FACTORY_FAILURE / len(rounds)) if step is not rounds[-1] else 1
        most = max(most, units * step.qubits)
        needed = units * INPUT_STATES
    return Factory(most, sum(step.seconds for step in rounds), error, tuple(step.label for step in rounds))


def _units(needed: int, failure: float, allowed: float) -> int:
    """How many units must run, each failing with this probability, so that fewer than needed succeed at most in this
    share of all runs."""
    units = needed
    while sum(_binomial(units, lost, failure) for lost in range(units - needed + 1)) < 1 - allowed:
        units += 1
    return units


def _binomial(trials: int, count: int, chance: float) -> float:
    return math.comb(trials, count) * chance**count * (1 - chance) ** (trials - count)


def _undominated(found: list[Factory]) -> Iterator[Factory]:
    """Those that no factory beats in error, qubits and qubit-seconds at once."""
    ordered = sorted(found, key=lambda one: (one.error, one.qubits * one.seconds))
    kept: list[Factory] = []
    for one in ordered:
        if not any(
            other.qubits <= one.qubits and other.qubits * other.seconds <= one.qubits * one.seconds for other in kept
        ):
            kept.append(one)
            yield one
