"""FLOPS: operations of a call, the machine's ceiling, the share that is reached: python examples/compute_power.py"""

from __future__ import annotations

import torch
from torch import nn

import vivace as vv


def main(time: str = "60s") -> None:
    """A network that multiplies large matrices comes near the ceiling; a small one is all overhead."""
    torch.manual_seed(0)
    for name, width, batch in (("wide", 1024, 256), ("small", 64, 1)):
        model = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)).eval()
        result = vv.optimize(vv.Workload(model, inputs=(torch.randn(batch, width),), name=name), time=time)
        found = result.compute
        if found is None:
            continue
        reached = "not measured" if found.winner.share is None else f"{found.winner.share:.0%} of the ceiling"
        print(f"{name}: {found.flops / 1e6:.3g} million operations, {found.winner.gflops:.3g} GFLOP/s, {reached}")


if __name__ == "__main__":
    main()
