"""Reading the user's data: one walk, and errors that name the batch."""

from __future__ import annotations

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
