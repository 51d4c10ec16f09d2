"""The user's data walked exactly once: each batch checked against the example call, flattened and kept in memory."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vivace.core.errors import UsageError, told_of
from vivace.core.structure import Structure, flatten, normalize_inputs

DEFAULT_BYTES = 2 << 30


@dataclasses.dataclass(frozen=True)
class Batch:
    """One item of the data: the flat inputs of a call, and the target as it was given (None when there is none)."""

    leaves: tuple[Tensor, ...]
    target: Any


@dataclasses.dataclass(frozen=True)
class Batches:
    """All that was read. `varying` are, for each flat input, the dimensions whose size differs between batches or from
    the example (the batch's own too). `note` says when not everything was read, `unlike` which batch is the first whose
    samples have another shape than the example's."""

    items: tuple[Batch, ...]
    varying: tuple[frozenset[int], ...]
    note: str = ""
    unlike: str = ""

    def __len__(self) -> int:
        return len(self.items)


def read(
    data: Iterable[Any],
    example: Any,
    *,
    needs_target: bool = False,
    max_bytes: int = DEFAULT_BYTES,
    max_samples: int | None = None,
) -> Batches:
    """Walk `data` once and keep its batches, at most `max_bytes` of tensors or `max_samples` samples.

    Each item is a pair (inputs, target) whose inputs have the structure and dtypes of `example`. Raises UsageError for
    an empty data set, an item that is not a pair, a missing target, inputs that do not fit and what the data themselves
    raise, saying which batch; and where an input is NaN throughout.
    """
    wanted, expected = _flat(example, None)
    items: list[Batch] = []
    held_bytes = held_samples = 0
    note = ""
    for number, item in enumerate(_given(data)):
        if held_bytes >= max_bytes or (max_samples is not None and held_samples >= max_samples):
            note = (
                f"read {len(items)} batches ({held_samples} samples, {held_bytes / 1e6:.0f} MB) and left the rest, "
                "as that is what may be held in memory"
            )
            break
        batch = _batch(item, number, expected, wanted, needs_target)
        items.append(batch)
        held_bytes += sum(leaf.numel() * leaf.element_size() for leaf in batch.leaves)
        held_samples += batch_size(batch.leaves) or 1
    if not items:
        raise UsageError(
            "data is empty: it gave no batch; give an iterable of (inputs, target) batches, and a fresh "
            "one if it is a generator that was used before"
        )
    told = "; ".join(filter(None, (note, with_nan(items))))
    return Batches(tuple(items), _varying(wanted, items), told, _unlike(wanted, items))


def _given(data: Iterable[Any]) -> Iterator[Any]:
    """The items of the user's data. Raises UsageError for what they raise."""
    left = iter(data)
    for number in itertools.count():
        try:
            item = next(left)
        except StopIteration:
            return
        except Exception as error:  # a user's data may raise anything
            told = f"batch {number} of data cannot be had: {told_of(error)}; mend the data or leave it out"
            raise UsageError(told) from error
        yield item


def with_nan(items: Sequence[Batch]) -> str:
    """How many samples hold NaN, as a phrase; empty where none does. A network may know what is missing by it, and a
    mask that is added may hold infinities. Raises UsageError where an input holds nothing else."""
    for place, leaves in enumerate(zip(*(batch.leaves for batch in items), strict=True)):
        if all(leaf.is_floating_point() and leaf.isnan().all() for leaf in leaves):
            raise UsageError(f"input {place} of data is NaN throughout; give data that hold numbers")
    counts = [_samples_with_nan(batch) for batch in items]
    if not any(counts):
        return ""
    samples = sum(batch_size(batch.leaves) or 1 for batch in items)
    first = next(place for place, count in enumerate(counts) if count)
    return f"{sum(counts)} of {samples} samples hold NaN in their inputs, the first in batch {first}"


def _samples_with_nan(batch: Batch) -> int:
    size = batch_size(batch.leaves) or 1
    found = torch.zeros(size, dtype=torch.bool)
    for leaf in batch.leaves:
        if leaf.is_floating_point():
            is_split = leaf.dim() > 0 and leaf.shape[0] == size
            found |= leaf.reshape(size if is_split else 1, -1).isnan().any(1)
    return int(found.sum())


def batch_size(leaves: Sequence[Tensor], axes: Sequence[int | None] | None = None) -> int | None:
    """How many samples a call holds; axis 0 of the first tensor that has one, unless `axes` are known."""
    axes = axes if axes is not None else [0 if leaf.dim() else None for leaf in leaves]
    return next((leaf.shape[axis] for leaf, axis in zip(leaves, axes, strict=True) if axis is not None), None)


def _flat(inputs: Any, order: Sequence[str] | None) -> tuple[list[Tensor], Structure]:
    args, kwargs = normalize_inputs(inputs)
    if order is not None and set(order) == set(kwargs):
        kwargs = {name: kwargs[name] for name in order}
    leaves, structure = flatten((args, kwargs), lambda value: isinstance(value, Tensor | np.ndarray))
    return [_as_tensor(leaf) for leaf in leaves], structure


def _batch(item: Any, number: int, expected: Structure, wanted: Sequence[Tensor], needs_target: bool) -> Batch:
    if not isinstance(item, tuple | list) or len(item) != 2:
        told = f"{type(item).__name__} of {len(item)}" if isinstance(item, tuple | list) else type(item).__name__
        raise UsageError(
            f"batch {number} of data is a {told}; allowed is a pair (inputs, target), with None for the "
            "target where there are no labels"
        )
    inputs, target = item
    if needs_target and target is None:
        raise UsageError(
            f"batch {number} of data has no target, and a metric needs one, as a loss does; give (inputs, target) "
            "pairs, or leave both out"
        )
    try:
        leaves, structure = _flat(inputs, expected.items[1].keys)
    except UsageError as error:
        raise UsageError(f"batch {number} of data: {error}") from error
    if structure != expected:
        raise UsageError(
            f"batch {number} of data has inputs {_describe(structure)}; the example call has "
            f"{_describe(expected)}; give the same arguments, by position or by name, in both"
        )
    _check_leaves(leaves, wanted, number)
    _check_target(leaves, target, number)
    # a loader may refill its buffers; what it put on a device is kept and scored on the CPU
    return Batch(tuple(leaf.detach().to("cpu", copy=True) for leaf in leaves), _kept(target))


def _kept(target: Any) -> Any:
    if isinstance(target, Tensor):
        return target.detach().to("cpu", copy=True)
    return target.copy() if isinstance(target, np.ndarray) else target


def _check_leaves(leaves: Sequence[Tensor], wanted: Sequence[Tensor], number: int) -> None:
    for position, (leaf, want) in enumerate(zip(leaves, wanted, strict=True)):
        if leaf.dtype != want.dtype:
            raise UsageError(
                f"batch {number} of data has dtype {leaf.dtype} in input {position}; the example has "
                f"{want.dtype}; convert the data or the example"
            )
        if leaf.dim() != want.dim():
            raise UsageError(
                f"batch {number} of data has shape {list(leaf.shape)} in input {position}; the example "
                f"has {list(want.shape)}; give the same number of dimensions"
            )
        if 0 in leaf.shape:
            raise UsageError(
                f"batch {number} of data has shape {list(leaf.shape)} in input {position}, which holds "
                "nothing; leave empty batches out"
            )


def _check_target(leaves: Sequence[Tensor], target: Any, number: int) -> None:
    """A target of tensors must count as many samples as some dimension of the inputs does."""
    counts = target_sizes(target)
    sizes = {n for leaf in leaves for n in leaf.shape[:2]}
    if counts and sizes and not any(count in sizes for count in counts):
        raise UsageError(
            f"batch {number} of data has {sorted(counts)[0]} targets for inputs of shape "
            f"{[list(leaf.shape) for leaf in leaves]}; give one target for each sample"
        )


def target_sizes(target: Any) -> set[int]:
    """The first dimension of each tensor or array of a target; the length of a list of plain values."""
    if isinstance(target, Tensor | np.ndarray):
        return {target.shape[0]} if target.ndim else set()
    if isinstance(target, Mapping):
        return {size for value in target.values() for size in target_sizes(value)}
    if isinstance(target, tuple | list):
        if any(isinstance(value, Tensor | np.ndarray | Mapping | tuple | list) for value in target):
            return {size for value in target for size in target_sizes(value)}
        return {len(target)}
    return set()


def _varying(wanted: Sequence[Tensor], items: Sequence[Batch]) -> tuple[frozenset[int], ...]:
    return tuple(
        frozenset(axis for axis in range(leaf.dim()) if any(b.leaves[i].shape[axis] != leaf.shape[axis] for b in items))
        for i, leaf in enumerate(wanted)
    )


def _unlike(wanted: Sequence[Tensor], items: Sequence[Batch]) -> str:
    """The first batch whose samples have another shape than the example's; empty where none has."""
    for number, batch in enumerate(items):
        for place, (leaf, want) in enumerate(zip(batch.leaves, wanted, strict=True)):
            if leaf.shape[1:] != want.shape[1:]:
                shape = f"shape {list(leaf.shape)} in input {place}"
                return f"batch {number} of data has {shape}, where the example has {list(want.shape)}"
    return ""


def _as_tensor(leaf: Any) -> Tensor:
    if isinstance(leaf, Tensor):
        return leaf
    return torch.from_numpy(np.array(leaf))


def _describe(structure: Structure) -> str:
    args, kwargs = structure.items
    parts = [_show(item) for item in args.items]
    parts += [f"{name}={_show(item)}" for name, item in zip(kwargs.keys, kwargs.items, strict=True)]
    return f"({', '.join(parts)})"


def _show(structure: Structure) -> str:
    if structure.kind == "constant":
        return repr(structure.constant)
    if structure.kind == "tensor":
        return "tensor"
    inner = ", ".join(_show(item) for item in structure.items)
    return f"{structure.kind}({inner})"
