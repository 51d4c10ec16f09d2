"""Operators that written networks know, each as a function of one tensor (samples, channels, length)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def held(*shape: int) -> Tensor:
    """Numbers that are always the same."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


WIDE, FOUR, LONG, EIGHT, FAR = held(3, 5, 3, 3), held(3, 3, 4, 4), held(4, 3, 5, 3), held(4, 2, 8), held(4, 2, 3)
PAIRS, PICKED, ONE = held(2, 6, 6), torch.tensor([2, 0, 0]), torch.tensor(1)
PLACE, APART = torch.tensor([1, 4, 1, 0]), torch.arange(9).flip(0)[:6].expand(3, 4, 6).contiguous()
TOGETHER = torch.randint(0, 9, (3, 4, 6), generator=torch.Generator().manual_seed(1))
TWO, CHANNELS, FIVE, PLACES = held(2), held(4), held(5), held(4, 6)
Operators = Mapping[str, Callable[[Tensor], Any]]

ELEMENTS: Operators = {
    "isnan": torch.isnan, "isinf": torch.isinf, "isfinite": torch.isfinite, "nan_to_num": torch.nan_to_num,
    "sign": torch.sign, "floor": torch.floor, "ceil": torch.ceil, "round": torch.round, "trunc": torch.trunc,
    "frac": torch.frac, "fmod": lambda x: torch.fmod(x, 0.7), "remainder": lambda x: x % 0.7,
    "remainder of a negative": lambda x: x % -0.7, "floored": lambda x: x // 0.7,
    "div, floor": lambda x: torch.div(x, 0.3, rounding_mode="floor"),
    "div, trunc": lambda x: torch.div(x, 0.3, rounding_mode="trunc"),
    "tan": torch.tan, "atan": torch.atan, "atan2": lambda x: torch.atan2(x, x * x + 0.1),
    "asin": lambda x: torch.asin(x.tanh()), "acos": lambda x: torch.acos(x.tanh()), "sinh": torch.sinh,
    "cosh": torch.cosh, "asinh": torch.asinh, "acosh": lambda x: torch.acosh(x.abs() + 1.1),
    "atanh": lambda x: torch.atanh(x.tanh() * 0.9), "log2": lambda x: torch.log2(x.abs() + 0.1),
    "log10": lambda x: torch.log10(x.abs() + 0.1), "exp2": torch.exp2, "erfc": torch.erfc,
    "xlogy": lambda x: torch.xlogy(x.abs(), x.abs() + 1), "hypot": lambda x: torch.hypot(x, x + 1),
    "softshrink": functional.softshrink, "max of two": lambda x: torch.max(x, x * x),
    "min of two": lambda x: torch.min(x, x * x), "or": lambda x: (x > 0) | (x > 1), "xor": lambda x: (x > 0) ^ (x > 1),
    "whole: or, xor, and": lambda x: ((x * 8).long() | 3) ^ ((x * 4).long() & 5),
    "whole: not, or": lambda x: torch.bitwise_or(~(x * 8).long(), (x * 4).long()),
    "not": lambda x: torch.logical_not(x > 0) ^ ~(x > 1),
    "whole: remainder": lambda x: (x * 8).long() % 3, "whole: floored": lambda x: (x * 8).long() // -3,
    "whole: abs": lambda x: (x * 9).long().abs(),
}  # fmt: skip
AXES: Operators = {
    "argmax of the last axis": lambda x: x.argmax(-1),
    "argmax of the first axis, kept": lambda x: x.argmax(0, keepdim=True),
    "argmax of all": lambda x: x.argmax(),
    "argmax of all, as they lie": lambda x: x.transpose(0, 2).argmax(),
    "argmax of an axis that lies elsewhere": lambda x: x.transpose(1, 2).argmax(1),
    "argmin": lambda x: x.argmin(1),
    "max of an axis": lambda x: x.max(1),
    "min of the first axis, kept": lambda x: x.min(0, keepdim=True),
    "max of all": lambda x: x.max(),
    "min of all": lambda x: x.min(),
    "amax of lines": lambda x: x.amax(-1),
    "amin of lines": lambda x: x.amin(-1),
    "max of whole numbers": lambda x: (x.nan_to_num() * 4).long().max(1),
    "amax of whole numbers": lambda x: (x.nan_to_num() * 4).long().amax((1, 2)),
    "topk": lambda x: (x + torch.arange(x.shape[-1])).topk(3, -1),  # of equal ones PyTorch names any
    "topk of another axis": lambda x: (x + torch.arange(x.shape[1])[:, None]).topk(2, 1),
    "topk of the smallest": lambda x: (x + torch.arange(x.shape[1])[:, None]).topk(2, 1, largest=False),
    "sort": lambda x: x.sort(stable=True, dim=-1),
    "sort, descending": lambda x: (x + torch.arange(x.shape[1])[:, None]).sort(1, descending=True),
    "argsort": lambda x: (x + torch.arange(x.shape[-1])).argsort(-1),
    "any": lambda x: (x > 1).any(-1),
    "any of all": lambda x: (x > 9).any(),
    "all": lambda x: (x > -0.5).all(1),
}
VIEWS: Operators = {
    "windows": lambda x: x.unfold(-1, 3, 2) * 2,
    "windows of another axis": lambda x: x.unfold(1, 2, 1),
    "index_select": lambda x: x.index_select(1, PICKED),
    "index_select of one": lambda x: x.index_select(-1, ONE),
    "flip": lambda x: x.flip(1, -1),
    "diagonal": lambda x: x.diagonal(1, 1, 2),
    "pad less": lambda x: functional.pad(x, (-1, 2), value=3.0),
    "pad around": lambda x: functional.pad(x, (2, 1), mode="circular"),
    "scatter": lambda x: torch.zeros(*x.shape[:2], 9).scatter(2, APART[: len(x)], x),
    "scatter of a number": lambda x: torch.zeros(*x.shape[:2], 9).scatter(2, APART[: len(x)], 2.0),
    "scatter_add": lambda x: torch.ones(*x.shape[:2], 9).scatter_add(2, TOGETHER[: len(x)], x),
    "scatter_add of the first axis": lambda x: x.scatter_add(0, TOGETHER[: len(x)] * 0, x),
    "index_add": lambda x: torch.zeros(len(x), 6, 6).index_add(1, PLACE, x),
    "index_put": lambda x: x.index_put((PICKED[:1] * 0, PICKED[:2]), x[0, :2]),
    "index_put, added": lambda x: x.transpose(0, 1).index_put((PICKED,), x.transpose(0, 1)[:3], accumulate=True),
    "slice_scatter": lambda x: x.slice_scatter(x[:, :2] * 0 + 5, 1, 0, 4, 2),
    "slice_scatter of the end": lambda x: x.slice_scatter(x[..., :2] * 2, -1, -2),
    "select_scatter": lambda x: x.select_scatter(x[:, 1], 1, -1),
    "masked_fill": lambda x: x.masked_fill(x > 0, 2.0),
    "columns": lambda x: functional.unfold(x[None], 3, padding=1, stride=2),
}
SUMS: Operators = {
    "prod": lambda x: x.prod(-1), "cumprod": lambda x: x.cumprod(1),
    "std": lambda x: x.std(-1), "std of all": lambda x: x.std(),
    "var": lambda x: x.var(1), "var with correction": lambda x: x.var((0, 2), correction=0, keepdim=True),
    "softmax of the first axis": lambda x: x.softmax(0), "log_softmax of another": lambda x: x.log_softmax(1),
    "instance_norm": lambda x: functional.instance_norm(x, weight=CHANNELS, bias=CHANNELS),
    "layer_norm of two axes": lambda x: functional.layer_norm(x, (4, 6), PLACES, PLACES),
    "cosine": lambda x: functional.cosine_similarity(x, x.flip(-1), dim=-1),
    "cdist": lambda x: torch.cdist(x, x * 2), "bilinear": lambda x: functional.bilinear(x[:, 0], x[:, 1], PAIRS),
    "attention of one head": lambda x: functional.scaled_dot_product_attention(x, x, x, is_causal=True),
    "transposed": lambda x: functional.conv_transpose2d(x.transpose(0, 1)[:3][None], WIDE, FIVE, 2, 1, 1),
    "transposed, even": lambda x: functional.conv_transpose2d(x.transpose(0, 1)[:3][None], FOUR, None, 2, 1),
    "transposed, groups": lambda x: functional.conv_transpose2d(
        x.transpose(0, 1)[None], LONG, None, (3, 1), (1, 0), 0, 2
    ),
    "transposed line": lambda x: functional.conv_transpose1d(x, EIGHT, TWO, 4, 2),
    "transposed line, odd": lambda x: functional.conv_transpose1d(x, FAR, None, 2),
}  # fmt: skip
GROUPS = {"elements": ELEMENTS, "axes": AXES, "views": VIEWS, "sums": SUMS}
EXACT = ("axes", "views")
"""Groups in which nothing is rounded."""


class All(nn.Module):
    """All operators of a group; what each gives, one after the other."""

    def __init__(self, group: str) -> None:
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> list[Tensor]:
        return [leaf for made in GROUPS[self.group].values() for leaf in leaves(made(x))]


def leaves(answer: Any) -> list[Tensor]:
    """The tensors of an answer."""
    return [answer] if isinstance(answer, Tensor) else list(answer)
