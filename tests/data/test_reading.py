"""Reading the user's data: one walk, and errors that name the batch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from vivace.core.errors import UsageError
from vivace.data import reading

X = torch.arange(24.0).reshape(6, 4)
Y = torch.arange(6)


def test_a_generator_is_walked_once_and_kept() -> None:
    walked: list[int] = []
    data = ((walked.append(i), ((X[i : i + 2],), Y[i : i + 2]))[1] for i in (0, 2, 4))

    batches = reading.read(data, (X[:1],))

    assert len(batches) == 3
    assert walked == [0, 2, 4]
    assert torch.equal(batches.items[1].leaves[0], X[2:4])
    assert torch.equal(batches.items[1].target, Y[2:4])


def test_a_data_loader_of_tensors_is_read() -> None:
    loader: Any = DataLoader(TensorDataset(X, Y), batch_size=4)

    batches = reading.read(loader, (X[:1],), needs_target=True)

    assert [batch.leaves[0].shape[0] for batch in batches.items] == [4, 2]


def test_numpy_arrays_become_tensors() -> None:
    batches = reading.read([(X.numpy(), np.arange(6))], X)

    assert torch.equal(batches.items[0].leaves[0], X)


def test_keyword_inputs_may_come_in_another_order() -> None:
    batches = reading.read([({"b": Y, "a": X}, None)], {"a": X, "b": Y})

    assert torch.equal(batches.items[0].leaves[0], X)


def test_dimensions_that_vary_are_reported_for_each_input() -> None:
    batches = reading.read([(torch.ones(2, 5, 3), None), (torch.ones(2, 7, 3), None)], torch.ones(2, 5, 3))

    assert batches.varying == (frozenset({1}),)


def test_what_the_data_raise_is_told_with_the_batch() -> None:
    def broken() -> Iterator[Any]:
        yield torch.zeros(2, 3), None
        raise KeyError("label_19")

    with pytest.raises(UsageError, match="batch 1 of data cannot be had: KeyError: 'label_19'"):
        reading.read(broken(), (torch.zeros(2, 3),))


def test_samples_with_nan_are_counted_and_an_input_of_nothing_else_is_refused() -> None:
    x = torch.zeros(4, 3)
    x[2, 1] = math.nan
    masked = torch.full((4, 3), -math.inf)

    found = reading.read([(torch.zeros(4, 3), None), (x, None), (masked, None)], (torch.zeros(4, 3),))

    assert found.note == "1 of 12 samples hold NaN in their inputs, the first in batch 1"
    with pytest.raises(UsageError, match="input 0 of data is NaN throughout"):
        reading.read([(torch.full((4, 3), math.nan), None)], (torch.zeros(4, 3),))


def test_reading_stops_at_the_cap_and_says_so() -> None:
    batches = reading.read([(X, Y)] * 5, X, max_samples=12)

    assert len(batches) == 2
    assert "2 batches (12 samples" in batches.note


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "data is empty"),
        ([X], "batch 0 of data is a Tensor; allowed is a pair"),
        ([((X,), Y), (X, Y, Y)], "batch 1 of data is a tuple of 3"),
        ([((X,), None)], "has no target, and a metric needs one"),
        ([((X.double(),), Y)], "dtype torch.float64 in input 0; the example has torch.float32"),
        ([({"x": X}, Y)], r"has inputs \(x=tensor\); the example call has \(tensor\)"),
        ([((X[0],), Y)], "give the same number of dimensions"),
        ([((X[:0],), Y[:0])], "which holds nothing"),
        ([((X,), Y[:3])], "has 3 targets for inputs of shape"),
        ([((object(),), Y)], "batch 0 of data: cannot handle a value of type object"),
    ],
)
def test_data_that_cannot_be_used_is_refused_with_what_was_received(data: list[Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        reading.read(data, (X[:1],), needs_target=True)
