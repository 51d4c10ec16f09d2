"""This machine's ceilings: the products and the copy to be timed, and the arithmetic from seconds to GFLOP/s and GB/s.

The caller gives the clock: all timing code lives in the room `measure`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch

from vivace.core.machine import Ceiling

_DTYPES = {"f32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}

Kernel = Callable[[], object]
SecondsOf = Callable[[Kernel], float]
"""Runs a kernel repeatedly, about a quarter of a second in all, and answers the seconds of its fastest run."""

SIDES = (512, 1024, 2048)
"""Sides of the square products tried, smallest first."""
ENOUGH_SECONDS = 0.05
"""A product that takes this long is big enough: start-up and caches no longer matter."""
COPY_BYTES = 256 << 20
"""Far beyond last-level caches, which hold tens of MiB to a few hundred on the largest servers."""
PRECISIONS = ("f32", "bf16", "int8")
DEVICE_SIDES = (2048, 4096, 8192)
DEVICE_COPY_BYTES = 1 << 30
DEVICE_PRECISIONS = ("f32", "tf32", "bf16", "f16", "int8")


def measure_ceilings(
    threads: Sequence[int], seconds_of: SecondsOf, precisions: Sequence[str] = PRECISIONS, copy_bytes: int = COPY_BYTES
) -> tuple[Ceiling, ...]:
    """The best rates seen here with each count of threads, in about three seconds a count.

    `seconds_of` times a kernel and answers its seconds (the fastest run: a ceiling is what the machine can do when
    nobody disturbs it). A precision that this build of PyTorch cannot multiply is left out, and one that it multiplies
    slower than f32: it has no kernel for it here, and what the machine could do is not known. PyTorch's count of
    threads is put back afterwards.
    """
    return tuple(_ceiling(count, seconds_of, precisions, copy_bytes) for count in threads)


def measure_device_ceiling(
    seconds_of: SecondsOf,
    precisions: Sequence[str] = DEVICE_PRECISIONS,
    sides: Sequence[int] = DEVICE_SIDES,
    copy_bytes: int = DEVICE_COPY_BYTES,
    device: str = "cuda",
) -> Ceiling:
    """The best rates of a CUDA device, in about five seconds; `seconds_of` must wait until the device has finished.

    Products are of random numbers: a card computes faster with zeros, for it draws less power. A precision that the
    device or this build of PyTorch cannot multiply is left out.
    """
    with torch.inference_mode():
        rates = {name: _best_on_device(name, seconds_of, sides, device) for name in precisions}
        found = {name: rate for name, rate in rates.items() if rate is not None}
        return Ceiling(1, found, copy_rate(copy_bytes, seconds_of(copy(copy_bytes, device))), "cuda")


def gflops(side: int, seconds: float) -> float:
    """10^9 operations a second of a product of two square matrices, a multiply-add being two.

    >>> gflops(1000, 0.02)
    100.0
    """
    return 2 * side**3 / seconds / 1e9


def copy_rate(copied_bytes: int, seconds: float) -> float:
    """10^9 bytes a second of a copy: each byte is read once and written once.

    >>> copy_rate(500_000_000, 0.1)
    10.0
    """
    return 2 * copied_bytes / seconds / 1e9


def product(precision: str, side: int, device: str = "cpu") -> Kernel:
    """A product of two square matrices, ready to be timed. Raises RuntimeError where PyTorch cannot compute it."""
    if precision == "int8":
        left = torch.randint(-128, 127, (side, side), dtype=torch.int8, device=device)
        right = left.t().contiguous().t()  # the layout that cards multiply
        return lambda: torch._int_mm(left, right)
    left = torch.randn(side, side, device=device).to(_DTYPES[precision])
    out = torch.empty_like(left)
    if precision != "tf32":
        return lambda: torch.mm(left, left, out=out)

    def rounded() -> object:
        with _tf32():
            return torch.mm(left, left, out=out)

    return rounded


def copy(copied_bytes: int, device: str = "cpu") -> Kernel:
    """A copy of float32 numbers from one place to another, ready to be timed."""
    source = torch.ones(copied_bytes // 4, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def _ceiling(count: int, seconds_of: SecondsOf, precisions: Sequence[str], copy_bytes: int) -> Ceiling:
    with threads(count), torch.inference_mode():
        rates = {name: _best_rate(name, seconds_of) for name in precisions}
        least = rates.get("f32") or 0.0
        found = {name: rate for name, rate in rates.items() if rate is not None and rate >= least}
        return Ceiling(count, found, copy_rate(copy_bytes, seconds_of(copy(copy_bytes))))


def _best_on_device(precision: str, seconds_of: SecondsOf, sides: Sequence[int], device: str) -> float | None:
    rates = []
    for side in sides:
        try:
            rates.append(gflops(side, seconds_of(product(precision, side, device))))
        except RuntimeError:  # neither this build nor this card has such a product, or there is no room for it
            break
    return max(rates, default=None)


def _best_rate(precision: str, seconds_of: SecondsOf) -> float | None:
    best = None
    for side in SIDES:
        try:
            seconds = seconds_of(product(precision, side))
        except RuntimeError:  # this build of PyTorch has no such product
            return best
        best = max(best or 0.0, gflops(side, seconds))
        if seconds >= ENOUGH_SECONDS:
            break
    return best


@contextlib.contextmanager
def _tf32() -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """So many threads of PyTorch's inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
