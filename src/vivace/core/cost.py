"""The work of one call, counted: techniques rewrite it to say what they expect, a roofline turns it into time."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Cost:
    """The counted work of one call of a program.

    `flops`: floating-point operations of products (a multiply-add is 2). `weight_bytes` and `activation_bytes`: bytes
    that must move if nothing stays in a cache. `operators`: how many kernels are launched. `operator_seconds`: overhead
    of launching one. `call_seconds`: overhead of one call. `precision`: of the products (f32, bf16, f16, int8).
    `threads`: how many cores share the work. `efficiency`: the share of the machine's ceiling that the kernels are
    expected to reach; a prior from published and own measurements, replaced as the search measures.
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

    def __post_init__(self) -> None:
        if min(self.flops, self.weight_bytes, self.activation_bytes, self.operators) < 0:
            raise ValueError(f"a cost cannot be negative: {self}")
        if not 0 < self.efficiency <= 1:
            raise ValueError(f"efficiency={self.efficiency} is not in (0, 1]")

    def replace(self, **changes: float | int | str) -> Cost:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]
