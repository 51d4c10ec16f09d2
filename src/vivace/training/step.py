"""One training step: gradients of a batch, whole or in parts, and the optimizer's update."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils import _pytree as pytree

from vivace.core.errors import UsageError
from vivace.core.training.rig import Rig


def train_step(rig: Rig, batch: Any) -> torch.Tensor:
    """One step on a batch. Returns its loss, detached: the weighted mean over the parts it was computed in.

    Gradients stay in the parameters until the next step.
    """
    if rig.gradients is not None:
        loss = rig.gradients(batch)
    else:
        rig.optimizer.zero_grad(set_to_none=True)
        loss = accumulate(rig, batch)
    if rig.scaling is None:
        rig.update()
    else:
        rig.scaling.step(rig.optimizer)
    return loss


def accumulate(rig: Rig, batch: Any, weight: float = 1.0) -> torch.Tensor:
    """Add the gradients of a batch's loss, times a weight, to the parameters'; returns that product, detached."""
    if rig.parts == 1:
        return _one_part(rig, batch, weight)
    parts = split(batch, rig.parts)
    weights = [rig.weight(part) for part in parts]
    whole = sum(weights)
    if not whole > 0 and weight:
        raise UsageError(f"the parts of a batch weigh {weights}; weight must be above 0 for one of them")
    shares = [weight * one / whole if whole > 0 else 0.0 for one in weights]
    losses = [_one_part(rig, part, share) for part, share in zip(parts, shares, strict=True)]
    return torch.stack(losses).sum()


def _one_part(rig: Rig, batch: Any, share: float) -> torch.Tensor:
    with around(rig.around), contextlib.nullcontext() if share else untaught(rig.model):
        loss = rig.forward(batch)
        if share != 1.0:
            loss = loss * share
    if not loss.requires_grad:
        raise UsageError(
            "loss returned a tensor without a gradient; allowed is one that is computed from the model's parameters: "
            "look for detach(), item(), torch.no_grad() or a new tensor made from numbers"
        )
    scaled = loss if rig.scaling is None else rig.scaling.scale(loss)
    scaled.backward()  # type: ignore[no-untyped-call]
    return loss.detach() if share else torch.zeros_like(loss)


@contextlib.contextmanager
def untaught(model: torch.nn.Module) -> Iterator[None]:
    """Inside, what a model gives receives gradients of 0. The mean over nothing, such as over the tokens of a part that
    is padding alone, is NaN, as is its gradient, and times a weight of 0 they still are."""

    def silence(_module: Any, _given: Any, gave: Any) -> None:
        for one in pytree.tree_leaves(gave):
            if torch.is_tensor(one) and one.grad_fn is not None:
                one.register_hook(torch.zeros_like)  # type: ignore[no-untyped-call]

    hook = model.register_forward_hook(silence)
    try:
        yield
    finally:
        hook.remove()


@contextlib.contextmanager
def around(contexts: tuple[Callable[[], Any], ...]) -> Iterator[None]:
    """All of these contexts at once."""
    with contextlib.ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context())
        yield


def split(batch: Any, parts: int) -> list[Any]:
    """A batch in at most so many parts, along the first axis of every tensor in it; what is no tensor goes to each.

    >>> [x.tolist() for x in split(torch.arange(5), 2)]
    [[0, 1, 2], [3, 4]]
    """
    leaves, spec = pytree.tree_flatten(batch)
    sizes = {leaf.shape[0] for leaf in leaves if torch.is_tensor(leaf) and leaf.ndim}
    if len(sizes) != 1:
        raise UsageError(
            f"a batch cannot be computed in parts: its tensors have first lengths {sorted(sizes)}; allowed is one"
        )
    count = min(parts, sizes.pop())
    columns = [leaf.tensor_split(count) if torch.is_tensor(leaf) and leaf.ndim else [leaf] * count for leaf in leaves]
    return [pytree.tree_unflatten(list(row), spec) for row in zip(*columns, strict=True)]
