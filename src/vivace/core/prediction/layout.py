"""How work is spread over devices, what each of them holds, and where the seconds of a step go."""

from __future__ import annotations

import dataclasses
import math

from vivace.core.errors import UsageError


@dataclasses.dataclass(frozen=True, order=True)
class Layout:
    """How a training is spread: `data` x `tensor` x `pipeline` devices, in micro-batches of so many samples.

    `sharding` is what data-parallel devices split between them: 0 nothing, 1 the optimizer's state, 2 gradients too,
    3 weights too (ZeRO's stages; 3 is FSDP's full shard). With `recompute` each layer is computed once more for its
    gradients instead of keeping its activations.

    >>> str(Layout(data=8, tensor=4, pipeline=2, sharding=1, micro_batch=2, recompute=True))
    'data 8 x tensor 4 x pipeline 2, micro-batch 2, sharded optimizer, recomputing'
    """

    data: int = 1
    tensor: int = 1
    pipeline: int = 1
    sharding: int = 0
    micro_batch: int = 1
    recompute: bool = False

    def __post_init__(self) -> None:
        sizes = (self.data, self.tensor, self.pipeline, self.micro_batch)
        if any(isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in sizes):
            raise UsageError(
                f"data, tensor, pipeline and micro_batch are {sizes}; allowed are whole numbers of 1 or more"
            )
        if self.sharding not in (0, 1, 2, 3):
            raise UsageError(f"sharding is {self.sharding!r}; allowed are 0, 1, 2 and 3")

    @property
    def devices(self) -> int:
        """How many devices it takes."""
        return self.data * self.tensor * self.pipeline

    def __str__(self) -> str:
        shared = ("", ", sharded optimizer", ", sharded gradients", ", fully sharded")[self.sharding]
        again = ", recomputing" if self.recompute else ""
        grid = f"data {self.data} x tensor {self.tensor} x pipeline {self.pipeline}"
        return f"{grid}, micro-batch {self.micro_batch}{shared}{again}"


MARGIN = 0.01
"""The share of a device's memory, in GB of 10^9 as it is sold, that is kept free. Devices sold as 80 GB have 85: room
for the driver and for what allocators lose. Of llm-foundry's trainings, all of which ran, the fullest holds 98.4% of
what is sold by this model."""


@dataclasses.dataclass(frozen=True)
class Memory:
    """What one device holds, in bytes, and what it has; `capacity_bytes` is None where the catalogue does not know.

    `activation_bytes` are those at the worst moment. What allocators lose is not in it: `MARGIN` of the capacity is
    kept free for that.
    """

    weight_bytes: float
    gradient_bytes: float
    optimizer_bytes: float
    activation_bytes: float
    capacity_bytes: float | None = None
    sharding: str = "none"

    @property
    def held_bytes(self) -> float:
        """All of it together."""
        return self.weight_bytes + self.gradient_bytes + self.optimizer_bytes + self.activation_bytes

    @property
    def fits(self) -> bool | None:
        """Whether the device has it, with a margin; None where its capacity is not known."""
        return None if self.capacity_bytes is None else self.held_bytes <= (1 - MARGIN) * self.capacity_bytes


@dataclasses.dataclass(frozen=True)
class Parts:
    """Where a step's seconds go, in the middle of the interval: what operators take for arithmetic and for memory, what
    launching them adds, communication that nothing hides, and the idle time of a pipeline."""

    arithmetic_seconds: float = 0.0
    memory_seconds: float = 0.0
    launch_seconds: float = 0.0
    communication_seconds: float = 0.0
    bubble_seconds: float = 0.0

    @property
    def bound(self) -> str:
        """What most of the time goes to."""
        shares = {field.name.removesuffix("_seconds"): getattr(self, field.name) for field in dataclasses.fields(self)}
        return max(shares, key=lambda name: shares[name])


def divisors(count: int) -> list[int]:
    """All divisors, smallest first; in the square root of the count.

    >>> divisors(12)
    [1, 2, 3, 4, 6, 12]
    """
    small = [size for size in range(1, math.isqrt(count) + 1) if count % size == 0]
    return sorted({*small, *(count // size for size in small)})
