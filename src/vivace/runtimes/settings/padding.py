"""A program whose calls are padded to one of few shapes, and whose answers are cut back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor
from torch.nn import functional

from vivace.core.errors import ArtifactError
from vivace.core.program import Model, Padding
from vivace.core.signature import Signature
from vivace.runtimes.program import Program

Shapes = tuple[tuple[int, ...], ...]
"""Of a call's flat inputs."""


def load(open_one: Callable[[Model], Program], model: Model) -> Program:
    """The program that `open_one` opens, called with padded inputs by the settings' padding.

    Raises ArtifactError where that does not fit the signature, and whatever opening the program raises.
    """
    padding = model.settings.padding
    assert padding is not None
    _check(padding, model.signature)
    inner = open_one(model)

    def run(leaves: Sequence[Tensor]) -> Sequence[Tensor]:
        target = target_of(tuple([tuple(leaf.shape) for leaf in leaves]), padding)
        if target is None:
            return inner.run(leaves)
        return cut(inner.run(padded(leaves, target)), leaves, padding)

    return Program(model.signature, model.settings, run, model.form, inner.close)


def target_of(shapes: Shapes, padding: Padding) -> Shapes | None:
    """The shapes that a call of these shapes is padded to; None where no bucket is as long, and where dimensions that
    are alike in every call that padding was proved for are not in this one.

    >>> target_of(((3, 5),), Padding((((2, 8),), ((2, 16),)), ((0, 1),), ()))
    ((3, 8),)
    """
    if any(shapes[i][axis] != shapes[other][along] for i, axis, other, along in padding.alike):
        return None
    fitting = [one for one in padding.buckets if all(shapes[i][axis] <= one[i][axis] for i, axis in padding.axes)]
    if not fitting:
        return None
    bucket, found = min(fitting, key=size_of), [list(shape) for shape in shapes]
    for i, axis in padding.axes:
        found[i][axis] = bucket[i][axis]
    return tuple(map(tuple, found))


def bucket_of(shapes: Shapes, buckets: Sequence[Shapes]) -> Shapes | None:
    """The smallest bucket that holds a call of these shapes in every dimension; None where none does.

    >>> bucket_of(((2, 5),), [((2, 16),), ((2, 8),)])
    ((2, 8),)
    """
    return min((bucket for bucket in buckets if holds(bucket, shapes)), key=size_of, default=None)


def holds(bucket: Shapes, shapes: Shapes) -> bool:
    """Whether no input is longer than the bucket in any dimension."""
    return all(
        len(one) == len(other) and all(n <= most for n, most in zip(other, one, strict=True))
        for one, other in zip(bucket, shapes, strict=True)
    )


def size_of(shapes: Shapes) -> int:
    """How many numbers a call of these shapes holds."""
    return sum(math.prod(shape) for shape in shapes)


def padded(leaves: Sequence[Tensor], target: Shapes) -> list[Tensor]:
    """Inputs with zeros (False) at the end of each dimension that is shorter than asked.

    >>> import torch
    >>> padded([torch.ones(2, dtype=torch.int64)], ((3,),))[0].tolist()
    [1, 1, 0]
    """
    return [_padded(leaf, shape) for leaf, shape in zip(leaves, target, strict=True)]


def cut(answers: Sequence[Tensor], leaves: Sequence[Tensor], padding: Padding) -> list[Tensor]:
    """The answers to padded inputs without what belongs to the padding."""
    found = list(answers)
    for output, axis, source, along in padding.cuts:
        length = leaves[source].shape[along]
        if found[output].shape[axis] > length:
            found[output] = found[output].narrow(axis, 0, length)
    return [leaf.contiguous() for leaf in found]


def _padded(leaf: Tensor, shape: tuple[int, ...]) -> Tensor:
    missing = [most - n for n, most in zip(leaf.shape, shape, strict=True)]
    if not any(missing):
        return leaf
    return functional.pad(leaf, [count for more in reversed(missing) for count in (0, more)])


def _check(padding: Padding, signature: Signature) -> None:
    """Raise ArtifactError for buckets that the program does not take, and cuts of what is not there."""
    for bucket in padding.buckets:
        if len(bucket) != len(signature.inputs):
            raise ArtifactError(f"it pads calls of {len(bucket)} inputs; the program takes {len(signature.inputs)}")
        for spec, shape in zip(signature.inputs, bucket, strict=True):
            problem = spec.problem_with(spec.dtype, shape)
            if problem:
                raise ArtifactError(f"it pads to a call that the program does not take: {problem}")
    for source, along in (*padding.axes, *(place for told in padding.alike for place in (told[:2], told[2:]))):
        if source >= len(signature.inputs) or along >= len(signature.inputs[source].shape):
            raise ArtifactError(f"it pads dimension {along} of input {source}, which the program does not have")
    for output, axis, source, along in padding.cuts:
        fits = output < len(signature.outputs) and source < len(signature.inputs)
        if not fits or axis >= len(signature.outputs[output].shape) or along >= len(signature.inputs[source].shape):
            raise ArtifactError(f"it cuts answers by {[output, axis, source, along]}, which the program does not have")
