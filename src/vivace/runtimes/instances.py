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
from vivace.runtimes.program import Program

MOST = 256


def load(open_one: Callable[[Model], Program], model: Model) -> Program:
    """A program that splits each batch over `model.settings.instances` copies; a smaller batch goes to the first one.

    Inputs are split, and outputs joined, along their batch axes. Raises ArtifactError for an impossible count or an
    output without a batch axis, and whatever opening one copy raises.
    """
    count, signature = model.settings.instances, model.signature
    if not 1 < count <= MOST:
        raise ArtifactError(f"the program asks for {count} instances; allowed are 2 to {MOST}")
    axes = [spec.batch_axis for spec in signature.inputs]
    joined = [spec.batch_axis for spec in signature.outputs]
    if not signature.has_batch or None in joined:
        raise ArtifactError("the program asks for several instances, and its calls cannot be split by samples")
    first, *others = copies = [open_one(model) for _ in range(count)]
    team = ThreadPoolExecutor(len(others), thread_name_prefix="vivace-instance")

    def run(leaves: Sequence[Tensor]) -> Sequence[Tensor]:
        size = size_of(leaves, axes)
        if size < count:
            return first.run(leaves)
        parts = split(leaves, axes, size, count)
        running = [team.submit(copy.run, part) for copy, part in zip(others, parts[1:], strict=True)]
        answers = [first.run(parts[0]), *(answer.result() for answer in running)]
        return [torch.cat(values, dim=axis) for values, axis in zip(zip(*answers, strict=True), joined, strict=True)]  # type: ignore[arg-type]

    def close() -> None:
        team.shutdown()
        for copy in copies:
            copy.close()

    return Program(signature, model.settings, run, model.form, close)


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
