"""Golden calls: a few real inputs with the outputs that the artifact gave when it was proved, replayed at each load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vivace.artifact.manifest import GOLDEN_CALLS, GOLDEN_OUTPUTS, PROGRAM, Golden
from vivace.core.errors import ArtifactError
from vivace.core.technique import Effect
from vivace.core.workload import Mix
from vivace.data import samples
from vivace.measure.process import STANDARD, Limits, Phase, Worker
from vivace.runtimes import store
from vivace.runtimes.program import Program

MAX_CALLS = 4
TOLERANCES = {Effect.EXACT: 1e-4, Effect.ROUNDED: 1e-3, Effect.CHANGED: 5e-2}
"""Largest error as a share of the largest output: rounding differs between processors, and more so in low precision."""


class Recorder:
    """A worker's service: opens the program of an artifact that is being made and records its golden calls."""

    def record(self, folder: str, calls: str, effect: str) -> dict[str, float]:
        """Store the first calls, one of every shape at the least, and what the program answers to them.

        Returns the fields of a Golden.
        """
        stored = samples.read(Path(calls))
        program = store.load(Path(folder) / PROGRAM, trust=True)
        numbers = chosen_calls(len(stored), stored.mix)
        chosen = [stored[number] for number in numbers]
        mix = stored.mix and Mix(tuple(stored.mix.shapes[number] for number in numbers), stored.mix.weights)
        samples.write(Path(folder) / GOLDEN_CALLS, chosen, stored.call, stored.positional, mix)
        outputs = [_outputs(program, leaves) for leaves in chosen]
        samples.write_outputs(Path(folder) / GOLDEN_OUTPUTS, outputs, program.signature.answer)
        return {"calls": len(chosen), "tolerance": TOLERANCES[Effect(effect)]}


def chosen_calls(count: int, mix: Mix | None) -> list[int]:
    """The numbers of the calls that become golden: the first of each shape, and the first others up to MAX_CALLS.

    >>> chosen_calls(6, None), chosen_calls(6, Mix((0, 0, 0, 0, 0, 1), (0.9, 0.1)))
    ([0, 1, 2, 3], [0, 1, 2, 5])
    """
    needed = mix.first_of_each() if mix is not None else []
    others = [number for number in range(count) if number not in needed]
    return sorted([*needed, *others[: max(0, MAX_CALLS - len(needed))]])


def open_recorder(arguments: Mapping[str, Any], payload: object) -> Recorder:
    """The worker's entry."""
    return Recorder()


def record(
    folder: Path, calls: Path, effect: Effect, log: Path, environment: Mapping[str, str], limits: Limits = STANDARD
) -> Golden:
    """Record golden calls in a process of its own. Raises WorkerFailure."""
    with Worker(log, limits, environment, fresh=False) as worker:
        worker.open("vivace.artifact.golden:open_recorder", {})
        arguments = {"folder": str(folder), "calls": str(calls), "effect": effect.value}
        return Golden(**worker.call("record", arguments, Phase.COMPILE))


def replay(program: Program, folder: Path, golden: Golden) -> None:
    """Raise ArtifactError unless the program still gives the golden outputs within the stated tolerance."""
    calls = samples.read(folder / GOLDEN_CALLS)
    expected = samples.read_outputs(folder / GOLDEN_OUTPUTS)
    if not len(calls) == len(expected) == golden.calls:
        raise ArtifactError(
            f"{folder} holds {len(calls)} golden calls and {len(expected)} golden outputs; the "
            f"manifest says {golden.calls}"
        )
    for index in range(golden.calls):
        worst = largest_error(expected[index], _outputs(program, calls[index]))
        if not worst <= golden.tolerance:
            raise ArtifactError(
                f"golden call {index} of {folder} is off by {worst:.2g} of the largest output; allowed is "
                f"{golden.tolerance:g}. The program computes something else on this machine than where it was proved; "
                "optimize again here"
            )


def largest_error(expected: Sequence[Tensor], given: Sequence[Tensor]) -> float:
    """The largest absolute difference as a share of the largest expected magnitude; infinite for another shape."""
    if [(t.shape, t.dtype) for t in expected] != [(t.shape, t.dtype) for t in given]:
        return float("inf")
    return max((_tensor_error(want, got) for want, got in zip(expected, given, strict=True)), default=0.0)


def _tensor_error(want: Tensor, got: Tensor) -> float:
    if not want.numel():
        return 0.0
    reference, answer = want.detach().to(torch.float64), got.detach().cpu().to(torch.float64)
    same = (reference == answer) | (reference.isnan() & answer.isnan())  # equal infinities have no difference
    difference = (reference - answer).masked_fill(same, 0.0).abs().max().item()
    if difference != difference:
        return float("inf")
    scale = reference.masked_fill(~reference.isfinite(), 0.0).abs().max().item()
    return difference / scale if scale else difference


def _outputs(program: Program, leaves: Sequence[Tensor]) -> list[Tensor]:
    return [leaf.detach().to("cpu", copy=True) for leaf in program.run(leaves)]
