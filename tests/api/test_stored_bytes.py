"""The bytes of a winner's compressed weights reach whoever asks: from the program to the result and the artifact."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import vivace as vv
from vivace.core.layer import StoredWeight


@pytest.mark.slow
def test_the_bytes_of_factors_are_in_the_result_and_in_every_file_that_tells_of_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(1024, 2048), nn.ReLU(), nn.Linear(2048, 1024)).eval()
    with torch.no_grad():
        net[0].weight.copy_(torch.randn(2048, 8) @ torch.randn(8, 1024) / 64)
        net[2].weight.copy_(torch.randn(1024, 4) @ torch.randn(4, 2048) / 64)
    x = torch.randn(512, 1024)
    work = vv.Workload(net, inputs=(x[:32],), data=[(part, None) for part in x.split(32)], name="low")

    found = vv.optimize(work, time="40s", out=tmp_path / "out", plan=["low-rank"], gate="fidelity")

    factors = 4 * 8 * (2048 + 1024), 4 * 4 * (1024 + 2048)
    whole = 4 * 2048 * 1024
    told = json.loads((tmp_path / "out" / "results.json").read_text())["stored_weights"]
    assert found.stored_weights is not None
    assert found.stored_weights.each == (
        StoredWeight("0", "rank 8", whole, factors[0]),
        StoredWeight("2", "rank 4", whole, factors[1]),
    )
    assert (told["layers"], told["dense_bytes"], told["stored_bytes"]) == (2, 2 * whole, sum(factors))
    for name in ("README.md", "report.html"):
        assert f"{sum(factors):,} bytes for {2 * whole:,} in 2 layers" in (tmp_path / "out" / name).read_text()
