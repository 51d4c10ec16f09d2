"""A job's parts put together: a fresh model, its optimizer, the feed and the step, from a seed."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils import _pytree as pytree

from vivace.core.errors import UsageError
from vivace.core.training.job import Advance, Training
from vivace.core.training.rig import Rig
from vivace.training.feed import feed_of


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Every global generator set by a seed inside, and as it was afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        seed_everything(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def seed_everything(seed: int) -> None:
    """Set the generators of Python, NumPy and PyTorch, on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def assemble(job: Training, seed: int | None = None) -> Rig:
    """The rig of a job as it was given: eager, whole batches. Leaves the generators where making the model left them.

    Raises UsageError where a factory gives something else than it should, or the same thing twice.
    """
    seed_everything(job.seed if seed is None else seed)
    model = _fresh(job)
    optimizer = job.optimizer(model.parameters())
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise UsageError(f"optimizer returned a {type(optimizer).__name__}; allowed is a torch.optim.Optimizer")
    _check_steps("optimizer", optimizer)
    _check_known(model, optimizer)

    def forward(batch: Any) -> torch.Tensor:
        loss: torch.Tensor = job.loss(model, batch)
        if not torch.is_tensor(loss) or loss.numel() != 1:
            raise UsageError(_wrong_loss(loss))
        return loss

    model.train()
    schedule = job.schedule(optimizer) if job.schedule is not None else None  # before `update`: it wraps the step
    if schedule is not None:
        _check_steps("schedule", schedule)
    return Rig(
        model=model,
        optimizer=optimizer,
        forward=forward,
        feed=feed_of(job),
        update=optimizer.step,
        weight=job.weight or samples_in,
        schedule=schedule,
    )


def samples_in(batch: Any) -> float:
    """How many samples a batch holds: the first length of its first tensor.

    >>> samples_in((torch.zeros(3, 8), torch.zeros(3)))
    3.0
    """
    first = next((leaf for leaf in pytree.tree_leaves(batch) if torch.is_tensor(leaf) and leaf.ndim), None)
    return float(first.shape[0]) if first is not None else 1.0


LOOP_HOLDS = frozenset(
    {
        "model", "optimizer", "forward", "feed", "update", "weight", "schedule", "around", "outside", "lineage",
        "notes", "recomputes", "ranks",
    }
)  # fmt: skip
"""The parts of a rig that a hand-written loop uses, or need not know of. The others are at their defaults then."""


def takes_step(rig: Rig) -> bool:
    """Whether a rig takes the step, or its update, as a whole: what a hand-written loop would do itself.

    An update whose `repeats_step` is true does what the optimizer's own step does, with less bookkeeping.
    """
    others = [field for field in dataclasses.fields(rig) if field.name not in LOOP_HOLDS]
    return not repeats_step(rig) or any(getattr(rig, field.name) != field.default for field in others)


def repeats_step(rig: Rig) -> bool:
    """Whether a rig's update does what its optimizer's own step does, and nothing beside."""
    return rig.update == rig.optimizer.step or bool(getattr(rig.update, "repeats_step", False))


def check_fresh(job: Training) -> None:
    """Raise UsageError where the model's factory gives the same module, or the same parameters, twice."""
    with seeded(job.seed):
        first, second = job.model(), job.model()
    shared = {id(parameter) for parameter in first.parameters()} & {id(parameter) for parameter in second.parameters()}
    if first is second or shared:
        what = "the same module" if first is second else f"{len(shared)} of the same parameters"
        raise UsageError(f"model returned {what} in two calls; {FRESH}")


def values_of(schedule: Any) -> int | None:
    """How many values a schedule has after which it fails, as PyTorch's OneCycleLR does; None of any other."""
    return schedule.total_steps if isinstance(schedule, OneCycleLR) else None


def check_rates(job: Training, rig: Rig, until: float | None = None) -> str:
    """Raise UsageError where a schedule has too few values for all epochs; with a score to stop at (`until`), which may
    be reached before, say so instead. Nothing where it has enough of them."""
    known, steps = values_of(rig.schedule), rig.feed.steps()
    counted = 1 if job.advance is Advance.EPOCH else steps or 0
    needed = counted * job.epochs
    if known is None or needed <= known:
        return ""
    unit = "epochs" if job.advance is Advance.EPOCH else "steps"
    told = f"schedule returned a {type(rig.schedule).__name__} of {known} values, and this training takes "
    if until is None:
        raise UsageError(f"{told}{needed} {unit}; allowed is one of {needed} or more")
    return (
        f"{told}up to {needed} {unit}: it stops where the schedule ends, unless it has reached {until:g} (until) before"
    )


def unknown_parameters(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """Names of parameters that learn and that the optimizer does not have."""
    known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    return [name for name, value in model.named_parameters() if value.requires_grad and id(value) not in known]


def sparse_weights(model: torch.nn.Module) -> list[str]:
    """Names of weights whose gradients autograd makes sparse: those of embeddings with `sparse=True`.

    >>> sparse_weights(torch.nn.Sequential(torch.nn.Embedding(9, 2, sparse=True), torch.nn.Linear(2, 2)))
    ['0.weight']
    """
    embeddings = (torch.nn.Embedding, torch.nn.EmbeddingBag)
    layers = {id(one.weight) for one in model.modules() if isinstance(one, embeddings) and one.sparse}
    return [name for name, value in model.named_parameters() if id(value) in layers and value.requires_grad]


def _fresh(job: Training) -> torch.nn.Module:
    model = job.model()
    if not isinstance(model, torch.nn.Module):
        raise UsageError(f"model returned a {type(model).__name__}; allowed is a torch.nn.Module")
    if getattr(model, _USED, False):
        raise UsageError(f"model returned a module that it had returned before; {FRESH}")
    _check_initialised(model)
    object.__setattr__(model, _USED, True)
    return model


def _check_initialised(model: torch.nn.Module) -> None:
    tensors = (*model.named_parameters(), *model.named_buffers())
    lazy = [name for name, value in tensors if torch.nn.parameter.is_lazy(value)]
    if lazy:
        raise UsageError(
            f"model returned a module with lazy layers that are not initialised: {_first_of(lazy)}; allowed is one "
            "whose tensors have their shapes: call it once on an example in its factory, as in "
            "`net(torch.zeros(1, 8)); return net`, or name the sizes, as in nn.Linear(8, 2)"
        )


_USED = "_vivace_was_given"
FRESH = (
    "allowed is a new one in each call, since every trial trains its own: build it inside the function, as in "
    "`def model(): return nn.Linear(8, 2)`"
)


def _check_steps(name: str, part: Any) -> None:
    needed = [
        one.name
        for one in inspect.signature(part.step).parameters.values()
        if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD
    ]
    if needed:
        raise UsageError(
            f"{name} returned a {type(part).__name__}, whose step needs {', '.join(needed)}; allowed is one whose "
            "step() needs nothing, such as torch.optim.Adam or torch.optim.lr_scheduler.CosineAnnealingLR"
        )


def _wrong_loss(loss: Any) -> str:
    if not torch.is_tensor(loss):
        return f"loss returned a {type(loss).__name__}; allowed is a scalar tensor, computed from the model's outputs"
    return f"loss returned a tensor of shape {list(loss.shape)}; allowed is a scalar: take its mean()"


def _check_known(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    own = {id(parameter) for parameter in model.parameters()}
    strangers = [p for group in optimizer.param_groups for p in group["params"] if id(p) not in own]
    if strangers:
        raise UsageError(
            f"the optimizer holds {len(strangers)} parameters that are not the model's; make it from the parameters "
            "that the function receives"
        )
    forgotten = unknown_parameters(model, optimizer)
    if forgotten:
        raise UsageError(
            f"the optimizer does not have these parameters, which would never learn: {_first_of(forgotten)}; allowed "
            "is an optimizer of all parameters that the function receives, or of all but those with "
            "requires_grad=False: set that for them in the model's factory if they are to stay as they are"
        )


def _first_of(names: list[str]) -> str:
    """The first four, and how many there are beside."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
