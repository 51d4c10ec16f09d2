"""Sparse weights: what they take to store, and where a sparse product is faster: python examples/sparse_product.py"""

from __future__ import annotations

import torch
from torch import nn

import vivace as vv

SHARES = (0.5, 0.9, 0.98)
SIDE = 1024


def pruned(weight: torch.Tensor, share: float) -> torch.Tensor:
    """The weights without the smallest `share` of them."""
    least = weight.abs().flatten().kthvalue(int(share * weight.numel())).values
    return torch.where(weight.abs() > least, weight, 0.0)


class SparseLinear(nn.Module):
    """A product with a matrix that holds its nonzeros by rows (CSR)."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.to_sparse_csr(), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.weight @ x.t()).t()


def csr_bytes(weight: torch.Tensor) -> int:
    """A value and a column for each nonzero, and where each row begins, in 4 bytes each."""
    return 8 * int(weight.count_nonzero()) + 4 * (len(weight) + 1)


def main(time: str = "20s") -> None:
    """The same product, dense and sparse, timed in pairs at each share of zeros."""
    torch.manual_seed(0)
    dense = nn.Linear(SIDE, SIDE, bias=False)
    x = torch.randn(32, SIDE)
    for share in SHARES:
        weight = pruned(dense.weight.detach(), share)
        dense.weight.data.copy_(weight)
        found = vv.measure(dense, SparseLinear(weight), inputs=(x,), time=time, restarts=1)
        size = csr_bytes(weight) / (4 * weight.numel())
        told = f"{found.speedup} times the dense product, {found.verdict.value}"
        print(f"{share:.0%} zeros: {size:.2f} of the bytes; {told}")


if __name__ == "__main__":
    main()
