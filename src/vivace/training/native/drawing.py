"""Random numbers of a compiled step: each is a function of the step's key, of which operator draws, and of its place.

So threads need no generator of their own, and a mask is the same wherever it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.fx import Node

from vivace.codegen.arrays import FLOAT, Array, Index, Value
from vivace.codegen.elementwise import number
from vivace.codegen.lowering import Lowering, kind_of, shape_of
from vivace.core.errors import NotApplicable

KEY = "const Key $"
"""How a key is declared as a parameter."""


class Draws:
    """The operators of a step that draw, counted as they are written down."""

    def __init__(self) -> None:
        self.count = 0

    @property
    def operators(self) -> Mapping[str, Callable[..., Value]]:
        """What writes them down, by their names."""
        return {"bernoulli": self._bernoulli, "rand": self._uniform, "rand_like": self._uniform}

    @property
    def names(self) -> list[str]:
        """Of their keys in C."""
        return [f"key{place}" for place in range(self.count)]

    def _bernoulli(self, lowering: Lowering, node: Node, value: Value, share: Any = None, **options: Any) -> Value:
        """One with a probability that is a number, else zero: what dropout keeps."""
        if node.target is torch.ops.aten.bernoulli_.float:
            share = 0.5 if share is None else share
        if not isinstance(share, int | float):
            raise NotApplicable("the step draws with a probability for each element, for which there is no C")
        return self._drawn(node, f"(%s < {number(share, FLOAT)} ? 1.0f : 0.0f)", options)

    def _uniform(self, lowering: Lowering, node: Node, *_: Any, **options: Any) -> Value:
        """From zero up to, and without, one."""
        return self._drawn(node, "%s", options)

    def _drawn(self, node: Node, form: str, options: Mapping[str, Any]) -> Value:
        if options.get("generator") is not None or kind_of(node) != FLOAT:
            raise NotApplicable(f"the step draws by a generator of its own, or whole numbers ({node.target})")
        name, shape = f"key{self.count}", shape_of(node)
        self.count += 1
        places = Array.whole("", shape)

        def at(index: Index) -> str:
            return form % f"drawn({name}, (unsigned){places.at(index).replace('[', '(').replace(']', ')')})"

        return Value(shape, FLOAT, at, lambda index: (), is_costly=True)


TEXT = """
struct Key { unsigned a, b; };
static const unsigned long *keys;
// of operator `place` in step `s`: the finalizer of splitmix64 (Steele et al., OOPSLA 2014)
static Key key_of(unsigned long place, long s) {
  unsigned long x = keys[s] + (place + 1) * 0x9e3779b97f4a7c15ul;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ul;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebul;
  x ^= x >> 31;
  return {(unsigned)x, (unsigned)(x >> 32)};
}
// 24 bits of element `i`, as a float from 0 to 1: two rounds of a permutation with little bias (Wellons, 2018)
INLINE float drawn(Key key, unsigned i) {
  unsigned x = i ^ key.a;
  x ^= x >> 16; x *= 0x7feb352du; x ^= x >> 15; x *= 0x846ca68bu; x ^= x >> 16;
  x += key.b;
  x ^= x >> 16; x *= 0x7feb352du; x ^= x >> 15; x *= 0x846ca68bu; x ^= x >> 16;
  return (float)(int)(x >> 8) * 0x1p-24f;
}
"""
