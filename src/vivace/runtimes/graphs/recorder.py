"""Records every operator that PyTorch dispatches while something runs: its operations and the bytes that it moves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from vivace.core.prediction.work import Operator, OperatorKind
from vivace.core.program import Model
from vivace.runtimes.graphs import counts
from vivace.runtimes.graphs.flops import attention_flops, formula_of

_NOTHING = counts.VIEWS | {
    "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "lift_fresh", "is_same_size",
    "_local_scalar_dense", "record_stream", "item",
}  # fmt: skip
"""What launches no kernel."""
_RECURRENT = frozenset({"lstm", "gru", "rnn_tanh", "rnn_relu"})


def recorded(run: Callable[[], object]) -> tuple[Operator, ...]:
    """The operators that are dispatched while `run` runs, in order, forward and backward; views and empty tensors are
    none. Works on meta tensors, which compute nothing; attention on them is one operator each way, as accelerators have
    it, where PyTorch would spell it out. A recurrent layer or cell is named before its parts.

    Flops are those of products, a multiply-add being 2, by the formulae of `graphs.flops`.
    """
    with _Recorder() as recorder, _Recurrent(recorder.operators), _OneAttention(recorder.operators):
        run()
    return tuple(recorder.operators)


def kept_bytes(forward: Callable[[], object], without: Sequence[Tensor]) -> int:
    """Bytes that a forward pass keeps for its gradients, each storage once, without those of some tensors (weights)."""
    known = {tensor.untyped_storage()._cdata for tensor in without}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        _answer = forward()  # held, so that no storage is given away and counted again
    return sum(kept.values())


def operators_of(model: Model, work: Mapping[str, counts.NodeWork]) -> tuple[Operator, ...]:
    """The operators of an exported graph, in order, from the work of its nodes."""
    names = {node.name: getattr(node.target, "_opname", "") for node in model.program.graph.nodes}
    return tuple(
        Operator(names[name], kind_of(names[name], done.flops), float(done.flops), float(done.moved_bytes))
        for name, done in work.items()
        if done.moved_bytes or done.flops
    )


def kind_of(name: str, flops: float) -> OperatorKind:
    """Whether an operator with so many operations is a convolution, another product, or neither."""
    if not flops:
        return OperatorKind.OTHER
    return OperatorKind.CONVOLUTION if "conv" in name else OperatorKind.PRODUCT


def merged(operators: Sequence[Operator]) -> tuple[Operator, ...]:
    """Operators of one name as one, which is how an optimizer that works on all tensors together launches them."""
    found: dict[str, list[Operator]] = defaultdict(list)
    for operator in operators:
        found[operator.name].append(operator)
    return tuple(
        Operator(name, same[0].kind, sum(one.flops for one in same), sum(one.moved_bytes for one in same))
        for name, same in found.items()
    )


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operators: list[Operator] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator and keep what it did."""
        kwargs = kwargs or {}
        answer = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if not func.is_view and name.rstrip("_") not in _NOTHING and name not in _NOTHING:
            count = formula_of(func.overloadpacket)
            flops = float(count(*args, **kwargs, out_val=answer)) if count is not None else 0.0
            moved = sum(leaf.numel() * leaf.element_size() for leaf in _tensors((args, kwargs, answer)))
            moved -= counts.unread_bytes(name, args, answer)
            self.operators.append(Operator(name, kind_of(name, flops), flops, float(moved)))
        return answer


class _Recurrent(TorchFunctionMode):
    """Names each recurrent layer that is called, by an operator that does nothing: on meta tensors PyTorch dispatches
    its steps alone, which look like any others."""

    def __init__(self, operators: list[Operator]) -> None:
        super().__init__()
        self._operators = operators

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a function, and name it first where it is recurrent."""
        name = getattr(func, "__name__", "")
        if name.removesuffix("_cell") in _RECURRENT:
            self._operators.append(Operator(name, OperatorKind.OTHER, 0.0, 0.0))
        return func(*args, **(kwargs or {}))


class _OneAttention(TorchFunctionMode):
    """Answers scaled_dot_product_attention on meta tensors with an empty tensor, and records one operator for it."""

    def __init__(self, operators: list[Operator]) -> None:
        super().__init__()
        self._operators = operators

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a function, or stand in for attention."""
        kwargs = kwargs or {}
        if func is not torch.nn.functional.scaled_dot_product_attention or not all(x.is_meta for x in args[:3]):
            return func(*args, **kwargs)
        is_causal = bool(kwargs.get("is_causal", args[5] if len(args) > 5 else False))
        return _Attention.apply(self._operators, *args[:3], is_causal)  # type: ignore[no-untyped-call]


class _Attention(torch.autograd.Function):
    """Attention that computes nothing: two products forward, five backward, one of them computed again.

    Source: Dao and others, FlashAttention, arXiv 2205.14135, algorithms 1 and 4.
    """

    @staticmethod
    def forward(ctx: Any, operators: list[Operator], q: Tensor, k: Tensor, v: Tensor, is_causal: bool) -> Tensor:
        """An empty answer of the right shape."""
        answer = q.new_empty((*q.shape[:-1], v.shape[-1]))
        ctx.operators, ctx.flops = operators, float(attention_flops(q, k, v, is_causal))
        ctx.save_for_backward(q, k, v, answer)
        moved = float(sum(x.nbytes for x in (q, k, v, answer)))
        operators.append(Operator("attention", OperatorKind.PRODUCT, ctx.flops, moved))
        return answer

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Empty gradients."""
        saved = ctx.saved_tensors
        moved = float(2 * sum(x.nbytes for x in saved))
        ctx.operators.append(Operator("attention_backward", OperatorKind.PRODUCT, 2.5 * ctx.flops, moved))
        return (None, *(torch.empty_like(x) for x in saved[:3]), None)


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]
