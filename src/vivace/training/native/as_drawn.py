"""Lets PyTorch's own operators draw what a compiled step draws, so that the original can take it with its masks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vivace.core.errors import NotApplicable

WORD, HALF = (1 << 64) - 1, (1 << 32) - 1


class AsDrawn(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside, operators draw what compiled code does (`drawing.TEXT`), one after the other, with the step's key taken
    from PyTorch's generator as that code takes it. Raises NotApplicable for one that no such code draws, and where
    they are not as many as `wanted`, those that the code has."""

    def __init__(self, wanted: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._wanted = wanted
        self._key = 0
        self._count = 0

    def __enter__(self) -> Any:
        self._key, self._count = int(torch.empty(1, dtype=torch.int64).random_()), 0
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)  # type: ignore[no-untyped-call]
        if raised[0] is None and self._count != self._wanted:
            raise NotApplicable(f"the model draws {self._count} times in a step, and its code {self._wanted} times")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags or _keeps_all(func, args, kwargs):
            return func(*args, **kwargs)
        name, aten = func.overloadpacket, torch.ops.aten
        if name is aten.bernoulli_ and not torch.is_tensor(_share(args, kwargs)):
            return args[0].copy_(self._next(args[0].shape) < torch.tensor(_share(args, kwargs), dtype=torch.float32))
        if name is aten.bernoulli and func is aten.bernoulli.p:
            return (self._next(args[0].shape) < torch.tensor(args[1], dtype=torch.float32)).to(args[0].dtype)
        if name in (aten.rand, aten.rand_like):
            like = func(*args, **kwargs)
            return like.copy_(self._next(like.shape))
        raise NotApplicable(f"no compiled step draws as {func} does")

    def _next(self, shape: torch.Size) -> Tensor:
        """What the next operator draws: numbers from zero up to, and without, one, in float32."""
        a, b = key_of(self._key, self._count)
        self._count += 1
        return drawn(a, b, shape.numel()).reshape(shape)


def key_of(step: int, place: int) -> tuple[int, int]:
    """The key of an operator in a step, as `key_of` of the compiled code."""
    x = (step + (place + 1) * 0x9E3779B97F4A7C15) & WORD
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & WORD
    x ^= x >> 31
    return x & HALF, x >> 32


def drawn(a: int, b: int, count: int) -> Tensor:
    """The first `count` numbers of a key, as `drawn` of the compiled code."""
    x = _mixed(torch.arange(count) ^ a)
    x = _mixed((x + b) & HALF)
    return (x >> 8).to(torch.float32) * 2.0**-24


def _mixed(x: Tensor) -> Tensor:
    """32 bits, in a type of 64 whose lower half holds of a product what 32 bits would."""
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & HALF
    x = x ^ (x >> 15)
    x = (x * 0x846CA68B) & HALF
    return x ^ (x >> 16)


def _share(args: Any, kwargs: Any) -> Any:
    return args[1] if len(args) > 1 else kwargs.get("p", 0.5)


def _keeps_all(func: Any, args: Any, kwargs: Any) -> bool:
    """An attention without dropout, which may draw and does not."""
    for place, argument in enumerate(func._schema.arguments):
        if argument.name == "dropout_p":
            return not (args[place] if place < len(args) else kwargs.get(argument.name, argument.default_value))
    return False
