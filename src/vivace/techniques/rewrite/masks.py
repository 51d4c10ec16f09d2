"""What hides scores from a softmax: terms that are added, or values put in place of scores, and these as terms."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from vivace.techniques.graph import GraphEdit
from vivace.techniques.rewrite.operands import same
from vivace.techniques.rewrite.values import constant

HIDES = -1e4
"""Up to this value a score counts as hidden: beside one above -9,896 its share is zero in float32 (e^-104 is)."""
ABSORBS = 32.0
"""Scores up to this size vanish in a sum with a value that is said to absorb them."""
HIDDEN = -(2.0**100)
"""Absorbs every score, in bfloat16, float32 and float64, and leaves room for twice as much."""


class Unlike(Exception):
    """Why a softmax is not the middle of an attention that can be rewritten."""


@dataclasses.dataclass(frozen=True)
class Mask:
    """One mask over the scores: added (times `factor`), or with `value` in their place where it is not zero (where it
    is zero, when `keeps`). Factor and value hold the scales that follow it.
    """

    node: Node
    factor: float = 1.0
    value: float | None = None
    keeps: bool = False


def as_added(masks: Sequence[Mask], dtype: torch.dtype) -> tuple[Mask, ...]:
    """The masks, innermost first, with values that hide the same when they are added to scores in place of replacing
    them; minus infinity stays.

    A query that sees some key gives what is hidden a share of zero either way. One that sees none has, of values that
    replace, as many equal scores: sums must be equal too. They are where the value absorbs the scores, which may be any
    that does where one value is all that hides; beside others it must be itself, so as to stay above or below these.
    Raises Unlike where that cannot be.
    """
    values = {mask.value for mask in masks if mask.value is not None and math.isfinite(mask.value)}
    if not values:
        return tuple(masks)
    if dtype is torch.float16:
        raise Unlike(f"{min(values):g} in place of scores cannot be told apart by adding in float16")
    if len(values) == 1 and all(mask.value is not None for mask in masks):
        return tuple(mask if mask.value == -math.inf else dataclasses.replace(mask, value=HIDDEN) for mask in masks)
    mildest = max(values)
    precision = torch.float64 if dtype is torch.float64 else torch.float32  # in which fused kernels add
    if -mildest * torch.finfo(precision).eps / 2 < ABSORBS:
        raise Unlike(f"{mildest:g} in place of scores is not low enough beside another mask")
    lowest = torch.finfo(dtype).min
    return tuple(
        mask if mask.value in (None, -math.inf) else dataclasses.replace(mask, value=max(mask.value, lowest))
        for mask in masks
    )


def is_causal(edit: GraphEdit, masks: Sequence[Mask], scores: Sequence[Any]) -> bool:
    """Whether the one mask is constant and hides exactly the keys after each query, for as many queries as keys."""
    queries, keys = scores[-2:]
    value = constant(edit, masks[0].node) if len(masks) == 1 else None
    if value is None or not same(queries, keys) or value.shape[-2:] != (queries, keys):
        return False
    kept = _kept(masks[0], value)
    return kept is not None and bool((kept == torch.ones(queries, keys, dtype=torch.bool).tril()).all())


def _kept(mask: Mask, value: Tensor) -> Tensor | None:
    """The scores that a constant mask shows, where it hides all others."""
    if mask.value is not None:
        return value.bool() if mask.keeps else ~value.bool()
    added = value.double() * mask.factor
    return added == 0 if bool(((added == 0) | (added <= HIDES)).all()) else None
