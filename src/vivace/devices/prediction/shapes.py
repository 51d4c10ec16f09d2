"""What operators of one shape take more or less than a law says: an error that steps with the same shapes share."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from vivace.devices.prediction.fitting import Vector

OF_TENSOR, OF_PARTS, OF_SHAPE = 0.04, 0.08, 0.08
"""How far a law is off, in logarithms, for all steps of so many tensor-parallel devices; more of it for all with as
many tokens in a micro-batch; and more of it for all of the same width too."""
OF_STEP = 0.03
"""What is left for each step: it was measured with noise, and is more than its operators."""


@dataclasses.dataclass(frozen=True, order=True)
class Shape:
    """What decides the sizes of a layer's operators on one device: devices that share it, tokens of a micro-batch, and
    the width."""

    tensor: int
    tokens: int
    width: int


@dataclasses.dataclass(frozen=True)
class ShapeErrors:
    """What was learned of shapes: `weights` says how strongly each that was measured pulls those like it."""

    weights: Mapping[Shape, float] = dataclasses.field(default_factory=dict)

    def factor(self, shape: Shape) -> float:
        """What a step with this shape takes over what the law says; 1 where nothing like it was measured."""
        return float(np.exp(sum(weight * alike(shape, other) for other, weight in self.weights.items())))


def alike(one: Shape, other: Shape) -> float:
    """How much of their error two shapes share: its variance.

    >>> alike(Shape(2, 1024, 512), Shape(4, 1024, 512))
    0.0
    """
    if one.tensor != other.tensor:
        return 0.0
    if one.tokens != other.tokens:
        return OF_TENSOR**2
    return OF_TENSOR**2 + OF_PARTS**2 + (OF_SHAPE**2 if one.width == other.width else 0.0)


def shape_errors(shapes: Sequence[Shape], errors: Vector) -> ShapeErrors:
    """What the errors log(measured / law) of steps say of their shapes: the best linear unbiased prediction of what
    those of a shape share, held short of each step's own error.

    One layer's operators have the same sizes in every step of a shape, however many layers, stages and copies it has.
    Source: Goldberger, Best linear unbiased prediction, Journal of the American Statistical Association 57, 1962.

    >>> found = shape_errors([Shape(8, 1024, 512)] * 3, np.array([0.2, 0.2, 0.2]))
    >>> round(found.factor(Shape(8, 1024, 512)), 2), found.factor(Shape(4, 1024, 512))
    (1.22, 1.0)
    """
    left: dict[Shape, list[float]] = defaultdict(list)
    for shape, error in zip(shapes, errors.tolist(), strict=True):
        left[shape].append(error)
    kinds = sorted(left)
    shared = np.array([[alike(one, other) for other in kinds] for one in kinds])
    own = np.diag([OF_STEP**2 / len(left[kind]) for kind in kinds])
    pulls = np.linalg.solve(shared + own, [float(np.mean(left[kind])) for kind in kinds])
    return ShapeErrors(dict(zip(kinds, pulls.tolist(), strict=True)))


def whitening(shapes: Sequence[Shape]) -> Vector:
    """The matrix that makes errors of steps with these shapes independent and of size 1, so that many steps of one
    shape do not count as if each told something new: generalized least squares (Aitken, 1935).

    >>> whitening([Shape(8, 1024, 512)]).shape
    (1, 1)
    """
    kinds = sorted(set(shapes))
    place = [kinds.index(shape) for shape in shapes]
    shared = np.array([[alike(one, other) for other in kinds] for one in kinds])
    whole = shared[np.ix_(place, place)] + OF_STEP**2 * np.eye(len(shapes))
    return np.asarray(np.linalg.inv(np.linalg.cholesky(whole)))
