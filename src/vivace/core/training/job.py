"""What the user brings to be trained: the functions that make a model, its loss, its optimizer, and the data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from enum import Enum
from typing import TYPE_CHECKING, Any

from vivace.core.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

Loss = Callable[[Any, Any], Any]
"""(model, batch) -> scalar tensor."""


class Advance(Enum):
    """When a learning-rate schedule takes its next value."""

    EPOCH = "epoch"
    STEP = "step"


@dataclasses.dataclass(frozen=True)
class Training:
    """A training job, given by the functions that make its parts, so that every trial starts from the same ones.

    `model`: () -> torch.nn.Module, a fresh one each call; weights come from PyTorch's global generator, which is seeded
    before.
    `loss`: (model, batch) -> scalar tensor, the mean over what the batch holds.
    `optimizer`: (parameters) -> torch.optim.Optimizer.
    `data`: a torch Dataset with a length (then `batch_size` is needed, and every epoch is shuffled unless `shuffle` is
    False), or an iterable of batches that may be walked again each epoch.
    `evaluate`: (model) -> score, higher is better.
    `schedule`: (optimizer) -> learning-rate scheduler, stepped each epoch or, with `advance` "step", each step.
    `augment`: (batch) -> batch, random changes to what the data give; they stay outside of every cache.
    `weight`: (batch) -> how much of the mean a batch holds when it is computed in parts, such as its tokens without
    padding; the number of samples unless it is given.
    `collate`: (list of samples) -> batch, PyTorch's own unless it is given.

    Raises UsageError when a field cannot be used.
    """

    model: Callable[[], torch.nn.Module]
    loss: Loss
    optimizer: Callable[[Any], Optimizer]
    data: Any
    batch_size: int | None = None
    evaluate: Callable[[torch.nn.Module], float] | None = None
    epochs: int = 1
    name: str = "training"
    schedule: Callable[[Optimizer], LRScheduler] | None = None
    advance: Advance | str = Advance.EPOCH
    augment: Callable[[Any], Any] | None = None
    weight: Callable[[Any], float] | None = None
    collate: Callable[[list[Any]], Any] | None = None
    shuffle: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "advance", _advance(self.advance))
        for name in ("model", "loss", "optimizer"):
            _check_callable(name, getattr(self, name), FORMS[name])
        for name in ("evaluate", "schedule", "augment", "weight", "collate"):
            if getattr(self, name) is not None:
                _check_callable(name, getattr(self, name), FORMS[name])
        _check_count("epochs", self.epochs)
        if self.batch_size is not None:
            _check_count("batch_size", self.batch_size)
        self._check_data()
        if not isinstance(self.name, str) or not self.name.strip():
            raise UsageError(f"name is {self.name!r}; allowed is a short text such as 'digits-cnn'")

    @property
    def has_samples(self) -> bool:
        """Whether `data` gives single samples by their number, which are put into batches here."""
        return hasattr(self.data, "__getitem__") and hasattr(self.data, "__len__") and self.batch_size is not None

    def _check_data(self) -> None:
        is_dataset = hasattr(self.data, "__getitem__") and hasattr(self.data, "__len__")
        if not is_dataset and not isinstance(self.data, Iterable):
            raise UsageError(
                f"data is {type(self.data).__name__}; allowed is a torch Dataset with a length, beside batch_size, or "
                "an iterable of batches"
            )
        if not is_dataset and self.batch_size is not None:
            raise UsageError(
                "batch_size was given, and data is an iterable without a length, which gives whole batches; leave "
                "batch_size out, or give a Dataset with __len__ and __getitem__"
            )
        if is_dataset and len(self.data) == 0:
            raise UsageError("data holds no sample; give at least one batch")
        if is_dataset and self.batch_size is not None and self.batch_size > len(self.data):
            raise UsageError(
                f"batch_size is {self.batch_size}, and data holds {len(self.data)} samples; allowed is a whole number "
                f"from 1 to {len(self.data)}"
            )


FORMS = {
    "model": "a function without arguments that returns a fresh torch.nn.Module",
    "loss": "a function (model, batch) -> scalar tensor",
    "optimizer": "a function (parameters) -> torch.optim.Optimizer, such as lambda p: torch.optim.Adam(p, 1e-3)",
    "evaluate": "a function (model) -> score, higher is better",
    "schedule": "a function (optimizer) -> learning-rate scheduler",
    "augment": "a function (batch) -> batch",
    "weight": "a function (batch) -> number",
    "collate": "a function (list of samples) -> batch",
}


def _advance(given: Advance | str) -> Advance:
    try:
        return Advance(given)
    except ValueError:
        allowed = ", ".join(repr(member.value) for member in Advance)
        raise UsageError(f"advance is {given!r}; allowed are {allowed}") from None


def _check_callable(name: str, value: Any, allowed: str) -> None:
    exists_already = name in ("model", "optimizer") and hasattr(value, "state_dict") and not isinstance(value, type)
    if not callable(value) or exists_already:
        hint = "; each trial needs one of its own" if exists_already else ""
        raise UsageError(f"{name} is a {type(value).__name__}; allowed is {allowed}{hint}")


def _check_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{name} is {value!r}; allowed is a whole number of 1 or more")
