"""Building: plans share what they begin with, and each still tells what building it takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import vivace as vv
from vivace.api.explain import cost_of
from vivace.core import registry
from vivace.core.errors import ArtifactError
from vivace.core.plan import Plan
from vivace.runtimes import store
from vivace.search.build import Builder
from vivace.search.prepare import Prepared, prepare
from vivace.techniques.compile.native_program import NativeProgram
from vivace.techniques.compile.open_vino import OpenVino
from vivace.techniques.memory.channels_last import ChannelsLast
from vivace.techniques.parallel.threads import Threads
from vivace.techniques.rewrite.fold_conv_batchnorm import FoldConvBatchnorm
from vivace.techniques.sparsity.channel_pruning import ChannelPruning


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


def test_the_operations_that_pruning_leaves_are_counted_and_go_with_the_program(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(32, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 4)).eval()
    work = vv.Workload(network, inputs=(torch.randn(16, 32),))
    prepared = prepare(work, tmp_path / "work")
    builder = Builder(prepared.work, prepared.program, registry.techniques())
    plans = [Plan.of([ChannelPruning(share=0.5), *others]) for others in ([], [NativeProgram()], [OpenVino()])]

    for number, plan in enumerate(plans):
        builder.build(plan.to_json(), str(tmp_path / str(number)))
    builder.build(Plan.of([Threads(1)]).to_json(), str(tmp_path / "same"))

    kept = 32 * 512 + 512 * 512 + 512 * 4  # pruning promises a quarter
    expected = pytest.approx(kept / (32 * 1024 + 1024 * 1024 + 1024 * 4))
    shares = [store.describe(tmp_path / str(number)).flops_share for number in range(len(plans))]
    assert shares == [expected] * len(plans)
    assert store.describe(tmp_path / "same").flops_share is None
    cost = prepared.work.cost
    assert cost_of(plans[2], cost, shares[2]).flops == pytest.approx(2 * 16 * kept)
    assert cost_of(plans[2], cost, None).flops == plans[2].cost(cost).flops


@pytest.mark.parametrize("share", ["much", -0.5, True, [0.5]])
def test_a_share_of_operations_that_is_none_is_refused(prepared: Prepared, tmp_path: Path, share: Any) -> None:
    Builder(prepared.work, prepared.program, registry.techniques()).build(
        Plan.of([Threads(1)]).to_json(), str(tmp_path / "it")
    )
    note = json.loads((tmp_path / "it" / "program.json").read_text())
    (tmp_path / "it" / "program.json").write_text(json.dumps({**note, "flops_share": share}))

    with pytest.raises(ArtifactError):
        store.describe(tmp_path / "it")
