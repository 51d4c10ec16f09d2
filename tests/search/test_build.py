"""Building: plans share what they begin with, and each still tells what building it takes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import vivace as vv
from vivace.core import registry
from vivace.core.plan import Plan
from vivace.search.build import Builder
from vivace.search.prepare import Prepared, prepare
from vivace.techniques.memory.channels_last import ChannelsLast
from vivace.techniques.parallel.threads import Threads
from vivace.techniques.rewrite.fold_conv_batchnorm import FoldConvBatchnorm


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    """A convolution with batch normalization, captured."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    return prepare(vv.Workload(network, inputs=(torch.randn(2, 3, 8, 8),)), tmp_path / "work")


def test_what_a_plan_shares_with_an_earlier_one_counts_as_its_building_too(prepared: Prepared, tmp_path: Path) -> None:
    builder = Builder(prepared.work, prepared.program, registry.techniques())
    first, second = (Plan.of([FoldConvBatchnorm(), other]) for other in (Threads(1), ChannelsLast()))

    alone = builder.build(first.to_json(), str(tmp_path / "first"))
    after = builder.build(second.to_json(), str(tmp_path / "second"))

    assert alone["shared_seconds"] == 0
    assert after["shared_seconds"] > 0
