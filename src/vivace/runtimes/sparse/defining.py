"""Operators of our own, made known to PyTorch once in a process."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.library import Library


def defined(schema: str, multiply: Callable[..., Any], shape: Callable[..., Any]) -> Any:
    """The operator of `torch.ops.vivace` with this schema, which `multiply` computes; `shape` makes an empty answer.
    Raises RuntimeError where it is defined already."""
    name, library = schema.partition("(")[0], _library()
    library.define(schema)
    library.impl(name, multiply, "CPU")
    library.impl(name, shape, "Meta")
    return getattr(torch.ops.vivace, name).default


@functools.cache
def _library() -> Any:
    make: Any = Library  # its methods carry no types
    return make("vivace", "DEF")
