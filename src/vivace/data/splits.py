"""Calibrate, select, confirm: samples dealt into three parts by a hash of their content, never mixed again."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vivace.core.errors import UsageError
from vivace.data.reading import Batch, Batches, batch_size, target_sizes

CALIBRATE_SHARE = 0.15
SELECT_SHARE = 0.35
CALIBRATE_SAMPLES = 512
Axes = Sequence[int | None]


@dataclasses.dataclass(frozen=True)
class Part:
    """A share of the data: units of one sample each, or whole batches where batches cannot be cut."""

    units: tuple[Batch, ...]
    axes: tuple[int | None, ...]
    cut: bool
    digests: tuple[str, ...]

    @property
    def samples(self) -> int:
        """How many samples it holds."""
        return sum(_samples(unit, self.axes) for unit in self.units)

    @property
    def digest(self) -> str:
        """SHA-256 over the hashes of its samples, in order: equal for equal parts."""
        return hashlib.sha256("".join(self.digests).encode()).hexdigest()

    def batches(self, size: int | None = None) -> list[tuple[list[Tensor], Any]]:
        """Flat inputs and target of each batch of up to `size` samples (None: all that fit together).

        Samples of equal shapes are put together in the order of the data; whole batches stay as they are.
        """
        if not self.cut:
            return [(list(unit.leaves), unit.target) for unit in self.units]
        groups: dict[Any, list[Batch]] = {}
        for unit in self.units:
            groups.setdefault(_kind(unit, self.axes), []).append(unit)
        return [
            _joined(group[start : start + (size or len(group))], self.axes)
            for group in groups.values()
            for start in range(0, len(group), size or len(group))
        ]


@dataclasses.dataclass(frozen=True)
class Parts:
    """The three parts; no content is in two of them."""

    calibrate: Part
    select: Part
    confirm: Part


def split(batches: Batches, batch_axes: Axes) -> Parts:
    """Deal samples into about 15% calibrate (at most 512 samples), 35% select and 50% confirm.

    The part follows from the SHA-256 of a sample's input bytes, so that duplicates land together and a second run deals
    the same. `batch_axes` is the batch axis of each flat input; where there is none, or a batch cannot be cut, whole
    batches are dealt. With few samples no part is left empty as long as there are different samples to deal.
    Raises UsageError when inputs or targets of one batch count differently.
    """
    axes = tuple(batch_axes)
    _check_sizes(batches.items, axes)
    can_cut = all(_can_cut(batch, axes) for batch in batches.items)
    units = [unit for batch in batches.items for unit in (cut(batch, axes) if can_cut else [batch])]
    digests = [_digest(unit.leaves) for unit in units]
    dealt = _deal(digests, [_samples(unit, axes) for unit in units])
    parts = [[i for i, part in enumerate(dealt) if part == wanted] for wanted in range(3)]
    return Parts(
        *(Part(tuple(units[i] for i in part), axes, can_cut, tuple(digests[i] for i in part)) for part in parts)
    )


def cut(batch: Batch, batch_axes: Axes, size: int = 1) -> list[Batch]:
    """Batches of `size` samples, the last perhaps of fewer; the batch itself where it cannot be cut.

    >>> [part.target for part in cut(Batch((torch.zeros(5, 2),), [0, 1, 2, 3, 4]), [0], 2)]
    [[0, 1], [2, 3], [4]]
    """
    if not _can_cut(batch, batch_axes):
        return [batch]
    count = batch_size(batch.leaves, batch_axes) or 0
    return [
        Batch(
            tuple(_rows(leaf, axis, start, size) for leaf, axis in zip(batch.leaves, batch_axes, strict=True)),
            _map_target(batch.target, slice(start, start + size)),
        )
        for start in range(0, count, size)
    ]


def _deal(digests: Sequence[str], samples: Sequence[int]) -> list[int]:
    """0, 1 or 2 for each unit. Different contents are ranked by their hash and cut at the shares."""
    weight: dict[str, int] = {}
    for digest, count in zip(digests, samples, strict=True):
        weight[digest] = weight.get(digest, 0) + count
    part = {digest: _share(digest) for digest in weight}
    for wanted in (2, 1, 0):
        _fill(part, wanted)
    held = 0
    for digest in sorted(d for d, p in part.items() if p == 0):
        held += weight[digest]
        if held > CALIBRATE_SAMPLES and held != weight[digest]:
            part[digest] = 2
    return [part[digest] for digest in digests]


def _share(digest: str) -> int:
    position = int(digest[:16], 16) / 16**16
    return 0 if position < CALIBRATE_SHARE else 1 if position < CALIBRATE_SHARE + SELECT_SHARE else 2


def _fill(part: dict[str, int], wanted: int) -> None:
    """Give an empty part one content of the largest part, if that can spare it."""
    counts = [sum(p == i for p in part.values()) for i in range(3)]
    richest = max(range(3), key=lambda i: counts[i])
    if counts[wanted] == 0 and counts[richest] > 1:
        part[min(digest for digest, p in part.items() if p == richest)] = wanted


def _digest(leaves: Iterable[Tensor]) -> str:
    found = hashlib.sha256()
    for leaf in leaves:
        found.update(f"{leaf.dtype}{list(leaf.shape)}".encode())
        found.update(leaf.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _check_sizes(items: Iterable[Batch], axes: Axes) -> None:
    for number, batch in enumerate(items):
        pairs = zip(batch.leaves, axes, strict=True)
        sizes = {leaf.shape[axis] for leaf, axis in pairs if axis is not None}
        if len(sizes) > 1:
            raise UsageError(
                f"batch {number} of data has inputs of {sorted(sizes)} samples; give the same number in each input"
            )
        targets = target_sizes(batch.target)
        if sizes and targets and len(targets) == 1 and targets != sizes:
            raise UsageError(
                f"batch {number} of data has {sizes.pop()} samples and {targets.pop()} targets; give one "
                "target for each sample"
            )


def _can_cut(batch: Batch, axes: Axes) -> bool:
    if all(axis is None for axis in axes):
        return False
    size = batch_size(batch.leaves, axes)
    return batch.target is None or target_sizes(batch.target) == {size}


def _rows(leaf: Tensor, axis: int | None, start: int, count: int) -> Tensor:
    return leaf if axis is None else leaf.narrow(axis, start, min(count, leaf.shape[axis] - start))


def _map_target(target: Any, rows: slice) -> Any:
    """Take these rows of each tensor, array or list of plain values of a target."""
    if target is None:
        return None
    if isinstance(target, Mapping):
        return {key: _map_target(value, rows) for key, value in target.items()}
    if isinstance(target, tuple | list) and any(_holds_samples(value) for value in target):
        changed = [_map_target(value, rows) for value in target]
        return tuple(changed) if isinstance(target, tuple) else changed
    return target[rows]


def _holds_samples(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray | Mapping | tuple | list)


def _joined(units: Sequence[Batch], axes: Axes) -> tuple[list[Tensor], Any]:
    leaves = [
        units[0].leaves[i] if axis is None else torch.cat([unit.leaves[i] for unit in units], dim=axis)
        for i, axis in enumerate(axes)
    ]
    return leaves, _join_targets([unit.target for unit in units])


def _join_targets(targets: Sequence[Any]) -> Any:
    first = targets[0]
    if first is None:
        return None
    if isinstance(first, Tensor):
        return torch.cat(list(targets))
    if isinstance(first, np.ndarray):
        return np.concatenate(targets)
    if isinstance(first, Mapping):
        return {key: _join_targets([target[key] for target in targets]) for key in first}
    if any(_holds_samples(value) for value in first):
        joined = [_join_targets(column) for column in zip(*targets, strict=True)]
        return tuple(joined) if isinstance(first, tuple) else joined
    values = [value for target in targets for value in target]
    return tuple(values) if isinstance(first, tuple) else values


def _kind(unit: Batch, axes: Axes) -> Any:
    """What samples must have in common to be put together: shapes, and the value of inputs that hold no samples."""
    shapes = tuple(tuple(leaf.shape) for leaf in unit.leaves)
    shared = [leaf for leaf, axis in zip(unit.leaves, axes, strict=True) if axis is None]
    return shapes, _digest(shared), _target_kind(unit.target)


def _target_kind(target: Any) -> Any:
    if isinstance(target, Tensor | np.ndarray):
        return tuple(target.shape)
    if isinstance(target, Mapping):
        return tuple((key, _target_kind(value)) for key, value in target.items())
    if isinstance(target, tuple | list) and any(_holds_samples(value) for value in target):
        return tuple(_target_kind(value) for value in target)
    return None


def _samples(unit: Batch, axes: Axes) -> int:
    return batch_size(unit.leaves, axes) or max(target_sizes(unit.target), default=1)
