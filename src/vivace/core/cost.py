"""The work of one call, counted: techniques rewrite it to say what they expect, a roofline turns it into time."""

from __future__ import annotations

import dataclasses

MOST = 0.5
"""The share of the flops from which on one kind of product decides what a precision is worth."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """The counted work of one call of a program.

    `flops`: floating-point operations of products (a multiply-add is 2). `weight_bytes` and `activation_bytes`: bytes
    that must move if nothing stays in a cache. `operators`: how many kernels are launched. `operator_seconds`: overhead
    of launching one. `call_seconds`: overhead of one call. `precision`: of the products (f32, bf16, f16, int8).
    `threads`: how many cores share the work. `efficiency`: the share of the machine's ceiling that the kernels are
    expected to reach; a prior from published and own measurements, replaced as the search measures. `device`: where it
    runs, cpu or cuda.
    `convolution_share` and `recurrent_share`: of the flops, those of convolutions and of recurrent cells; the rest are
    matrix products.
    """

    flops: float
    weight_bytes: float
    activation_bytes: float
    operators: int
    operator_seconds: float = 5e-6
    call_seconds: float = 5e-6
    precision: str = "f32"
    threads: int = 1
    efficiency: float = 0.5
    convolution_share: float = 0.0
    recurrent_share: float = 0.0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if min(self.flops, self.weight_bytes, self.activation_bytes, self.operators) < 0:
            raise ValueError(f"a cost cannot be negative: {self}")
        if not 0 < self.efficiency <= 1:
            raise ValueError(f"efficiency={self.efficiency} is not in (0, 1]")

    @property
    def mostly_convolutions(self) -> bool:
        """Whether what leaves convolutions as they are leaves most of the work as it is."""
        return self.convolution_share > MOST

    @property
    def mostly_recurrent(self) -> bool:
        """Whether what leaves recurrent cells as they are leaves most of the work as it is."""
        return self.recurrent_share > MOST

    def replace(self, **changes: float | int | str) -> Cost:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]
