"""The exact optimum of both choices, by dynamic programming along the chain of layers: what the product uses."""

from __future__ import annotations

import functools
import math

from vivace.core.errors import UsageError
from vivace.quantum.choices.answer import Found
from vivace.quantum.choices.problem import Choice, PrecisionChoice, StageChoice

COUNTED = "table entries"


def solve(choice: Choice) -> Found:
    """The best choice, whatever the number of layers: the time grows with their number (precisions) or its square
    (stages), not with the number of choices. Raises UsageError for a choice of another kind."""
    if isinstance(choice, PrecisionChoice):
        return _precisions(choice)
    if isinstance(choice, StageChoice):
        return _stages(choice)
    raise UsageError(f"a {type(choice).__name__} cannot be solved exactly; allowed are precisions and stages")


def _precisions(choice: PrecisionChoice) -> Found:
    """The shortest path through the precisions: Viterbi's recurrence."""
    kinds = range(len(choice.precisions))
    best = [choice.switch_seconds[0][0][kind] + choice.seconds[0][kind] for kind in kinds]
    steps: list[list[int]] = []
    evaluations = len(best)
    for layer in range(1, len(choice.layers)):
        reached, came = [], []
        for kind in kinds:
            ways = [best[before] + choice.switch_seconds[layer][before][kind] for before in kinds]
            came.append(min(kinds, key=ways.__getitem__))
            reached.append(ways[came[-1]] + choice.seconds[layer][kind])
            evaluations += len(ways)
        best, steps = reached, [*steps, came]
    last = min(kinds, key=lambda kind: best[kind] + choice.switch_seconds[-1][kind][0])
    path = [last]
    for came in reversed(steps):
        path.append(came[path[-1]])
    return Found(tuple(reversed(path)), evaluations + len(best), COUNTED)


def _stages(choice: StageChoice) -> Found:
    """The best cuts: for each stage and each end of it, the best beginning."""
    count, calls = len(choice.layers), 0
    sums = [0.0]
    for seconds in choice.seconds:
        sums.append(sums[-1] + seconds)

    def handed(end: int) -> float:
        """What is handed on after `end` layers; nothing before the first and after the last."""
        return choice.transfer_seconds[end - 1] if 0 < end < count else 0.0

    @functools.cache
    def best(stage: int, begin: int) -> tuple[float, tuple[int, ...]]:
        """The least cost of this stage and the later ones for the layers from `begin`, and where each of them ends."""
        nonlocal calls
        ends = [count] if stage == choice.stages - 1 else range(begin, count + 1)
        found: tuple[float, tuple[int, ...]] = (math.inf, ())
        for end in ends:
            calls += 1
            load = sums[end] - sums[begin] + handed(end)
            rest, cuts = best(stage + 1, end) if stage + 1 < choice.stages else (0.0, ())
            if load * load + rest < found[0]:
                found = load * load + rest, (end, *cuts)
        return found

    _, cuts = best(0, 0)
    chosen, begin = [], 0
    for stage, end in enumerate(cuts):
        chosen += [stage] * (end - begin)
        begin = end
    return Found(tuple(chosen), calls, COUNTED)
