"""Data parallelism: a batch split over copies of a network, beside Amdahl's law: python examples/parallel_copies.py"""

from __future__ import annotations

import os

import torch
from torch import nn

import vivace as vv
from vivace.devices.scaling import implied


def network() -> nn.Module:
    """Small layers, which gain little from threads that share one of them."""
    torch.manual_seed(0)
    return nn.Sequential(*(layer for _ in range(12) for layer in (nn.Linear(192, 192), nn.ReLU()))).eval()


def main(time: str = "60s") -> None:
    """One copy with one thread, then a copy for each core; and what of a call must be serial to explain that."""
    x = torch.randn(256, 192)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    work = vv.Workload(network(), inputs=(x,), name="copies")
    if cores < 2:
        print("one core: there is nothing to split")
        return
    alone, together = (vv.optimize(work, time=time, plan=plan) for plan in (
        [{"technique": "threads", "settings": {"count": 1}}],
        [{"technique": "instances", "settings": {"count": cores}}],
    ))  # fmt: skip
    print(f"one thread: {alone.speedup} times the original; {cores} copies: {together.speedup} times")
    gained = together.speedup.value / alone.speedup.value
    serial = max(0.0, implied(cores, gained).serial)
    print(f"{cores} copies did {gained:.2f} times the work of one thread: by Amdahl's law {serial:.0%} is serial")


if __name__ == "__main__":
    main()
