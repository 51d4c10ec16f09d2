"""Stored calls for arms."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vivace.core.structure import flatten
from vivace.data import samples


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    """Twelve distinct calls of one positional tensor x[4, 64]."""
    torch.manual_seed(0)
    inputs = [[torch.randn(4, 64)] for _ in range(12)]
    _, call = flatten({"x": inputs[0][0]}, torch.is_tensor)
    return samples.write(tmp_path / "calls", inputs, call, 1)
