"""Mixed precision in training: bfloat16 products, float32 weights, and the proof: python examples/mixed_precision.py"""

from __future__ import annotations

import torch
from train_digits import job

import vivace as vv

CAST = "bfloat16"


def main(time: str = "") -> None:
    """Compare gradients of a step whose products are in bfloat16 with float64, beside float32's own error."""
    proof = vv.parity(job, [CAST])
    worst = sorted((one for one in proof.agreements if not one.reason), key=lambda one: one.error, reverse=True)
    print(f"{CAST}: {proof.verdict.value}, {proof.reason}")
    for one in worst[:3]:
        print(f"{one.kind.value} of {one.name}: relative error {one.error:.1e}, allowed {one.allowed:.1e}")
    matrix = torch.randn(512, 512)
    exact, cast = matrix.double() @ matrix.double(), (matrix.bfloat16() @ matrix.bfloat16()).double()
    print(f"a product of 512 x 512 alone: relative error {float((cast - exact).norm() / exact.norm()):.1e} in bfloat16")


if __name__ == "__main__":
    main()
