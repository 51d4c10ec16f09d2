"""Splitting: three parts that share nothing, and the same ones every time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vivace.core.errors import UsageError
from vivace.data import reading, splits


def _read(rows: list[int], size: int) -> reading.Batches:
    values = torch.tensor(rows, dtype=torch.float32).reshape(-1, 1)
    labels = torch.tensor(rows)
    data = [((values[i : i + size],), labels[i : i + size]) for i in range(0, len(rows), size)]
    return reading.read(data, (values[:1],))


def _contents(part: splits.Part) -> set[float]:
    return {float(unit.leaves[0].flatten()[0]) for unit in part.units}


@settings(max_examples=50, deadline=None)
@given(rows=st.lists(st.integers(0, 40), min_size=1, max_size=120), size=st.integers(1, 16))
def test_no_content_is_in_two_parts_and_no_sample_is_lost(rows: list[int], size: int) -> None:
    parts = splits.split(_read(rows, size), [0])

    kept = [_contents(part) for part in (parts.calibrate, parts.select, parts.confirm)]
    assert kept[0] | kept[1] | kept[2] == {float(row) for row in rows}
    assert sum(len(contents) for contents in kept) == len(set(rows))
    assert parts.calibrate.samples + parts.select.samples + parts.confirm.samples == len(rows)


@settings(max_examples=20, deadline=None)
@given(rows=st.lists(st.integers(0, 1000), min_size=5, max_size=80, unique=True), data=st.data())
def test_the_part_of_a_sample_does_not_depend_on_order_or_batch_size(rows: list[int], data: Any) -> None:
    shuffled = data.draw(st.permutations(rows))

    one, other = splits.split(_read(rows, 4), [0]), splits.split(_read(shuffled, 7), [0])

    assert _contents(one.confirm) == _contents(other.confirm)
    assert _contents(one.calibrate) == _contents(other.calibrate)


def test_shares_are_near_15_35_50() -> None:
    parts = splits.split(_read(list(range(2000)), 50), [0])

    assert parts.calibrate.samples == pytest.approx(300, abs=50)
    assert parts.select.samples == pytest.approx(700, abs=70)
    assert parts.confirm.samples == pytest.approx(1000, abs=70)


def test_calibration_is_capped_and_the_surplus_is_confirmed() -> None:
    parts = splits.split(_read(list(range(6000)), 500), [0])

    assert parts.calibrate.samples == 512
    assert parts.confirm.samples > 3000


def test_batches_keep_inputs_and_targets_together() -> None:
    parts = splits.split(_read(list(range(100)), 9), [0])

    batches = parts.confirm.batches(8)

    assert all(torch.equal(leaves[0].flatten().long(), target) for leaves, target in batches)
    assert max(target.shape[0] for _, target in batches) == 8


def test_samples_of_other_shapes_are_batched_apart() -> None:
    data = [(torch.randn(8, n, generator=torch.Generator().manual_seed(n)), None) for n in (3, 4)]
    parts = splits.split(reading.read(data, data[0][0]), [0])

    shapes = {leaves[0].shape[1] for leaves, _ in parts.confirm.batches(16)}

    assert shapes == {3, 4}


@pytest.mark.parametrize(
    "target",
    [
        np.arange(10),
        list(range(10)),
        {"a": torch.arange(10), "b": [np.arange(10)]},
        (torch.arange(10), torch.arange(20).reshape(10, 2)),
    ],
)
def test_targets_of_every_kind_are_cut_and_put_together(target: Any) -> None:
    data = [((torch.arange(10.0).reshape(10, 1),), target)]
    parts = splits.split(reading.read(data, data[0][0]), [0])

    leaves, joined = parts.confirm.batches()[0]

    assert reading.target_sizes(joined) == {leaves[0].shape[0]}
    assert type(joined) is type(target)


def test_whole_batches_are_dealt_where_there_is_no_batch_axis() -> None:
    data = [(torch.full((3, 3), float(i)), None) for i in range(12)]

    parts = splits.split(reading.read(data, data[0][0]), [None])

    assert not parts.confirm.cut
    assert len(parts.calibrate.units) + len(parts.select.units) + len(parts.confirm.units) == 12


def test_inputs_that_count_differently_are_refused() -> None:
    data = [((torch.ones(4, 2), torch.ones(5, 2)), None)]

    with pytest.raises(UsageError, match=r"batch 0 of data has inputs of \[4, 5\] samples"):
        splits.split(reading.read(data, data[0][0]), [0, 0])
