"""Several copies of a program in one process: each answers its part of a batch, at the same time.

A runtime with two threads waits for both after every operator; two copies with one thread each wait once a call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from vivace.core.errors import ArtifactError
from vivace.core.program import Model
from vivace.core.signature import Signature
from vivace.runtimes.program import Program
from vivace.runtimes.settings.around import Run

MOST = 256


def load(open_one: Callable[[Model], Program], model: Model) -> Program:
    """A program that splits each batch over `model.settings.instances` copies; a smaller batch goes to the first one.

    Inputs are split, and outputs joined, along their batch axes. Raises ArtifactError for an impossible count or an
    output without a batch axis, and whatever opening one copy raises.
    """
    count, signature = model.settings.instances, model.signature
    if not 1 < count <= MOST:
        raise ArtifactError(f"the program asks for {count} instances; allowed are 2 to {MOST}")
    copies: list[Program] = []
    team = ThreadPoolExecutor(count - 1, thread_name_prefix="vivace-instance")

    def alone(leaves: Sequence[Tensor]) -> Sequence[Tensor]:
        return copies[0].run(leaves)

    def several(parts: Sequence[Sequence[Tensor]]) -> list[Sequence[Tensor]]:
        running = [team.submit(copy.run, part) for copy, part in zip(copies[1:], parts[1:], strict=True)]
        return [alone(parts[0]), *(answer.result() for answer in running)]

    def close() -> None:
        team.shutdown()
        for copy in copies:
            copy.close()

    run = divided(signature, count, alone, several)
    copies += [open_one(model) for _ in range(count)]
    return Program(signature, model.settings, run, model.form, close)


def divided(
    signature: Signature, count: int, alone: Run, several: Callable[[list[list[Tensor]]], Sequence[Sequence[Tensor]]]
) -> Run:
    """Calls whose samples are divided into `count` parts, which `several` answers; with fewer samples, `alone` does.

    Raises ArtifactError for calls that cannot be split, or whose answers cannot be joined, by samples.
    """
    axes, joined = ([spec.batch_axis for spec in specs] for specs in (signature.inputs, signature.outputs))
    if not signature.has_batch or None in joined:
        raise ArtifactError(f"the program asks for {count} parts of a batch, and its calls cannot be split by samples")

    def run(leaves: Sequence[Tensor]) -> Sequence[Tensor]:
        size = size_of(leaves, axes)
        if size < count:
            return alone(leaves)
        answers = several(split(leaves, axes, size, count))
        return [torch.cat(one, dim=axis) for one, axis in zip(zip(*answers, strict=True), joined, strict=True)]  # type: ignore[arg-type]

    return run


def first_part(model: Model, leaves: Sequence[Tensor]) -> Sequence[Tensor]:
    """What the first copy gets of a call."""
    axes, count = [spec.batch_axis for spec in model.signature.inputs], model.settings.instances
    size = size_of(leaves, axes)
    return leaves if count == 1 or size < count else split(leaves, axes, size, count)[0]


def size_of(leaves: Sequence[Tensor], axes: Sequence[int | None]) -> int:
    return next((leaf.shape[axis] for leaf, axis in zip(leaves, axes, strict=True) if axis is not None), 1)


def split(leaves: Sequence[Tensor], axes: Sequence[int | None], size: int, count: int) -> list[list[Tensor]]:
    """The inputs in `count` parts of nearly equal size along their batch axes; others go to every part.

    >>> [part[0].tolist() for part in split([torch.arange(5)], [0], 5, 2)]
    [[0, 1, 2], [3, 4]]
    """
    parts = []
    start = 0
    for number in range(count):
        length = part_size(size, count, number)
        parts.append(
            [
                leaf if axis is None else leaf.narrow(axis, start, length)
                for leaf, axis in zip(leaves, axes, strict=True)
            ]
        )
        start += length
    return parts


def part_size(size: int, count: int, number: int = 0) -> int:
    """How many of `size` samples the part of that number holds.

    >>> [part_size(5, 2, number) for number in (0, 1)]
    [3, 2]
    """
    return size // count + (number < size % count)
