"""Stored calls and outputs come back as they were."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vivace.core.errors import ArtifactError
from vivace.core.structure import Structure
from vivace.data import samples

TENSOR = Structure("tensor")
CALL = Structure("dict", (TENSOR, Structure("constant", constant=2.0), TENSOR), ("x", "scale", "mask"))


def test_calls_come_back_with_their_arguments(tmp_path: Path) -> None:
    calls = [[torch.arange(6.0).reshape(2, 3).t(), torch.tensor([True])], [torch.ones(1, 2), torch.tensor([False])]]

    stored = samples.read(samples.write(tmp_path / "calls", calls, CALL, 1))

    args, kwargs = stored.arguments(0)
    assert len(stored) == 2
    assert torch.equal(args[0], calls[0][0])
    assert kwargs["scale"] == 2.0
    assert torch.equal(kwargs["mask"], calls[0][1])


def test_one_tensor_may_be_in_many_calls(tmp_path: Path) -> None:
    shared = torch.ones(3)
    stored = samples.read(samples.write(tmp_path, [[shared, shared[:1]], [shared, shared]], CALL, 3))

    assert torch.equal(stored[1][1], shared)


def test_outputs_come_back_nested(tmp_path: Path) -> None:
    answer = Structure("dict", (TENSOR,), ("logits",))

    stored = samples.read_outputs(samples.write_outputs(tmp_path / "o.safetensors", [[torch.ones(2)]], answer))

    assert torch.equal(next(stored.values())["logits"], torch.ones(2))


def test_an_index_beyond_the_end_is_an_index_error(tmp_path: Path) -> None:
    stored = samples.read_outputs(samples.write_outputs(tmp_path / "o.safetensors", [[torch.ones(2)]], TENSOR))

    with pytest.raises(IndexError, match="no entry 1 among 1"):
        stored[1]


def test_a_missing_folder_is_an_artifact_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no stored calls"):
        samples.read(tmp_path)
