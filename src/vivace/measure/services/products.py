"""A worker's service that times operators of PyTorch with the arguments of a call, in each of some precisions."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vivace.measure import clock

SECONDS = 0.02
"""How long each kernel is run in each of ROUNDS rounds, at least FEWEST calls."""
ROUNDS, FEWEST, MOST = 3, 3, 400
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
Kernel = Callable[[], object]


class Products:
    """Operators with their arguments: torch.ops names, and positional arguments of which tensors are cast."""

    def __init__(self, products: Sequence[tuple[str, tuple[Any, ...]]]) -> None:
        self._products = [(_operator(name), arguments) for name, arguments in products]

    def seconds(self, threads: int, precisions: Sequence[str]) -> dict[str, Any]:
        """Median seconds of one call of each operator in each precision, and how many calls they are of."""
        kernels = [
            _bound(operator, _cast(arguments, DTYPES[name]))
            for operator, arguments in self._products
            for name in precisions
        ]
        medians, calls = self._timed(kernels, threads)
        count = len(precisions)
        return {"seconds": [medians[at : at + count] for at in range(0, len(medians), count)], "calls": calls}

    def casts(self, sizes: Sequence[int], precisions: Sequence[str], threads: int) -> dict[str, Any]:
        """Median seconds of casting so many numbers from each precision to each other; nothing for the same one."""
        kernels, places = [], []
        for place, size in enumerate(sizes):
            for before, one in enumerate(precisions):
                for after, other in enumerate(precisions):
                    if one != other:
                        source = torch.randn(size).to(DTYPES[one])
                        kernels.append(_casting(source, DTYPES[other]))
                        places.append((place, before, after))
        medians, calls = self._timed(kernels, threads)
        kinds = range(len(precisions))
        found = [[[0.0 for _ in kinds] for _ in kinds] for _ in sizes]
        for (place, before, after), value in zip(places, medians, strict=True):
            found[place][before][after] = value
        return {"seconds": found, "calls": calls}

    def _timed(self, kernels: Sequence[Kernel], threads: int) -> tuple[list[float], int]:
        """The median of each kernel over rounds in which all take their turn."""
        torch.set_num_threads(threads)
        readings: list[list[float]] = [[] for _ in kernels]
        with torch.inference_mode(), clock.quiet_collector():
            for _ in range(ROUNDS):
                for kernel, found in zip(kernels, readings, strict=True):
                    found += _round(kernel)
        return [statistics.median(found) for found in readings], sum(map(len, readings))


def open_products(arguments: Mapping[str, Any], payload: Any = None) -> Products:
    """The worker's entry: the payload holds the name and the arguments of each operator."""
    return Products(payload)


def _round(kernel: Kernel) -> list[float]:
    def run(_: int) -> object:
        return kernel()

    once = clock.time_calls(run, range(2))[1]
    return clock.time_calls(run, range(max(FEWEST, min(MOST, int(SECONDS / max(once, 1e-9))))))


def _operator(name: str) -> Any:
    """The operator of a name such as "aten.linear.default"."""
    found: Any = torch.ops
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _bound(operator: Any, arguments: tuple[Any, ...]) -> Kernel:
    return lambda: operator(*arguments)


def _casting(source: Tensor, dtype: torch.dtype) -> Kernel:
    return lambda: source.to(dtype)


def _cast(arguments: tuple[Any, ...], dtype: torch.dtype) -> tuple[Any, ...]:
    return tuple(one.to(dtype) if isinstance(one, Tensor) and one.dtype.is_floating_point else one for one in arguments)
