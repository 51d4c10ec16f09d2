"""The calls that arms are timed with: distinct, of the example's shapes, from real data where there are enough."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

TIMING_CALLS = 16
"""Distinct inputs that both arms walk, some of them held out; at least 8, so that a cache of results earns nothing."""
INPUT_NOISE = 0.05
"""Size of the perturbation that makes further inputs from a single example, as a share of its standard deviation."""
LARGEST_PERTURBED = 1e6
"""Floats beyond this are masks or sentinels, not measurements: they stay as they are."""
Axes = Sequence[int | None]


def perturbed(example: Sequence[Tensor], count: int, seed: int = 0) -> list[list[Tensor]]:
    """Calls like the example: itself first, then with noise on floats and integers drawn from those that occur, none
    above the largest at its place.

    Booleans, and floats that hold infinities or huge values (masks), are kept as they are.
    """
    generator = torch.Generator().manual_seed(seed)
    return [list(example), *([_perturb(leaf, generator) for leaf in example] for _ in range(count - 1))]


def timing_calls(axes: Axes, example: Sequence[Tensor], part: Sequence[Any], seed: int) -> list[list[Tensor]]:
    """TIMING_CALLS distinct calls of exactly the example's shapes.

    Rows are drawn from the part's samples (whole calls where there is no batch axis); where the data hold too few
    different ones, perturbed calls are added.
    """
    drawn = _drawn(axes, example, [leaves for leaves, _ in part], seed)
    calls = _distinct([*drawn, *perturbed(drawn[0] if drawn else example, TIMING_CALLS + 1, seed)])
    return calls[:TIMING_CALLS]


def shapes_of(leaves: Sequence[Tensor]) -> list[tuple[int, ...]]:
    """The shape of each tensor."""
    return [tuple(leaf.shape) for leaf in leaves]


def _drawn(axes: Axes, example: Sequence[Tensor], calls: Sequence[Sequence[Tensor]], seed: int) -> list[list[Tensor]]:
    if all(axis is None for axis in axes):
        return [list(leaves) for leaves in calls if shapes_of(leaves) == shapes_of(example)]
    pool = [leaves for leaves in calls if _row_shapes(axes, leaves) == _row_shapes(axes, example)]
    if not pool:
        return []
    rows = [
        torch.cat(column, dim=axis) if axis is not None else column[0]
        for column, axis in zip(zip(*pool, strict=True), axes, strict=True)
    ]
    size, total = _samples(axes, example), _samples(axes, rows)
    generator = torch.Generator().manual_seed(seed)
    order = torch.cat([torch.randperm(total, generator=generator) for _ in range(size * TIMING_CALLS // total + 1)])
    return [
        [
            leaf if axis is None else leaf.index_select(axis, order[start : start + size])
            for leaf, axis in zip(rows, axes, strict=True)
        ]
        for start in range(0, size * TIMING_CALLS, size)
    ]


def _distinct(calls: Sequence[list[Tensor]]) -> list[list[Tensor]]:
    """The first of those that hold the same values."""
    found: dict[str, list[Tensor]] = {}
    for leaves in calls:
        found.setdefault(_digest(leaves), leaves)
    return list(found.values())


def _digest(leaves: Sequence[Tensor]) -> str:
    total = hashlib.sha256()
    for leaf in leaves:
        total.update(leaf.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def _perturb(leaf: Tensor, generator: torch.Generator) -> Tensor:
    if leaf.dtype is torch.bool or leaf.numel() < 1:
        return leaf.clone()
    if leaf.dtype.is_floating_point:
        values = leaf.double()
        if not bool(torch.isfinite(values).all()) or float(values.abs().max()) > LARGEST_PERTURBED:
            return leaf.clone()
        spread = float(values.std(correction=0)) if leaf.numel() > 1 else 0.0
        noise = torch.randn(leaf.shape, generator=generator, dtype=torch.float64) * INPUT_NOISE * (spread or 1.0)
        return (values + noise).to(leaf.dtype)
    return _redrawn(leaf, generator)


def _redrawn(leaf: Tensor, generator: torch.Generator) -> Tensor:
    """Integers of the leaf, none above the largest that its place holds in any sample: columns of categories may have
    tables of different lengths, which a larger one would leave."""
    known = leaf.flatten().sort().values
    largest = (leaf.amax(0, keepdim=True) if leaf.dim() > 1 else leaf.max()).expand_as(leaf)
    allowed = torch.searchsorted(known, largest.contiguous(), right=True)
    drawn = torch.rand(leaf.shape, generator=generator, dtype=torch.float64) * allowed
    return known[drawn.long()]


def _row_shapes(axes: Axes, leaves: Sequence[Tensor]) -> list[tuple[int, ...]]:
    return [tuple(n for i, n in enumerate(leaf.shape) if i != axis) for leaf, axis in zip(leaves, axes, strict=True)]


def _samples(axes: Axes, leaves: Sequence[Tensor]) -> int:
    return next(leaf.shape[axis] for leaf, axis in zip(leaves, axes, strict=True) if axis is not None)
