"""What a solver of a choice answers, beside what it took."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from vivace.quantum.choices.problem import Choice, StageChoice

Clock = Callable[[], float]
"""Seconds since some moment; the caller's, because only the room `measure` tells the time."""

SAME = 1e-9
"""Costs that differ by a smaller share are the same: sums are rounded."""


@dataclasses.dataclass(frozen=True)
class Found:
    """What a solver found: a choice, or None where it found none or may not run, with the reason in `note`.

    `evaluations` counts what `counted` names: table entries, energies, runs of a circuit, or calls of an oracle.
    `hits` of `samples` read the best state; `chance` is what guessing would give.
    """

    chosen: tuple[int, ...] | None
    evaluations: int
    counted: str
    note: str = ""
    hits: int | None = None
    samples: int | None = None
    chance: float | None = None


@dataclasses.dataclass(frozen=True)
class Answer:
    """One solver's answer beside the exact optimum. `basis` is EXACT, HEURISTIC or SIMULATED; `seconds` is how long it
    took here, for a circuit the time of its simulation, MEASURED. `excess` is the cost over the optimum's, as a share
    of it. Both are None where nothing was found. `bottleneck` is the longest stage of a pipeline.
    """

    solver: str
    basis: str
    found: Found
    described: str
    cost: float | None
    is_optimal: bool
    excess: float | None
    seconds: float
    bottleneck: float | None = None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One choice solved every way. `used` names the solver whose answer is to be used: always the exact one."""

    name: str
    unit: str
    layers: tuple[str, ...]
    bits: int
    states: float
    basis: str
    answers: tuple[Answer, ...]
    used: str
    note: str = ""

    def __post_init__(self) -> None:
        if not self.answers:
            raise ValueError("a comparison has no answers")


@dataclasses.dataclass(frozen=True)
class Solver:
    """A way to solve a choice, with its name and the basis of its answer."""

    name: str
    basis: str
    solve: Callable[[Choice], Found]


def compared(choice: Choice, solvers: Sequence[Solver], clock: Clock, basis: str, note: str = "") -> Comparison:
    """Every solver's answer; the first of them is the exact one, against which the others are held."""
    answers: list[Answer] = []
    for solver in solvers:
        started = clock()
        found = solver.solve(choice)
        seconds = clock() - started
        answers.append(_answer(choice, solver, found, answers[0].cost if answers else None, seconds))
    bits = choice.qubo().bits
    return Comparison(
        choice.name, choice.unit, choice.layers, bits, 2.0**bits, basis, tuple(answers), solvers[0].name, note
    )


def _answer(choice: Choice, solver: Solver, found: Found, best: float | None, seconds: float) -> Answer:
    if found.chosen is None:
        return Answer(solver.name, solver.basis, found, "-", None, False, None, seconds)
    cost = choice.cost(found.chosen)
    least = cost if best is None else best
    excess = (cost - least) / least if least else cost
    longest = choice.bottleneck(found.chosen) if isinstance(choice, StageChoice) else None
    described = choice.described(found.chosen)
    return Answer(solver.name, solver.basis, found, described, cost, excess <= SAME, excess, seconds, longest)
