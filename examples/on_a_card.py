"""GPU: a network on a CUDA card, made faster there; without a card it says so: python examples/on_a_card.py"""

from __future__ import annotations

import torch
from torch import nn

import vivace as vv


def main(time: str = "5m") -> None:
    """The model and its example lie on the card: the original is timed there, and every plan."""
    if not torch.cuda.is_available():
        print("PyTorch sees no CUDA device here; `vivace doctor` says what there is")
        return
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(512, 8, 2048, batch_first=True)
    model = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False).eval().cuda()
    result = vv.optimize(vv.Workload(model, inputs=(torch.randn(8, 128, 512).cuda(),), name="encoder"), time=time)
    print(f"won: {result.plan}, {result.speedup} times the original on the card")


if __name__ == "__main__":
    main()
