"""The rig that a plan makes of a job: the parts that one training step uses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler


class Feed(Protocol):
    """Gives a training its batches, the same ones in the same order however often it is asked."""

    def epoch(self, number: int, skip: int = 0) -> Iterator[Any]:
        """The batches of one epoch, without the first `skip`."""
        ...

    def steps(self) -> int | None:
        """Batches in an epoch; None where only walking it tells."""
        ...


class Scaling(Protocol):
    """Scales the loss, so that small gradients do not vanish in narrow numbers, and takes the optimizer's step with
    gradients scaled back, or leaves it out where they are not finite."""

    skipped: int
    """Steps that were left out."""

    def scale(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss to go backward from."""
        ...

    def step(self, optimizer: Optimizer) -> None:
        """Take the step, or leave it out and scale less from now on."""
        ...

    def state(self) -> dict[str, float]:
        """What a checkpoint keeps of it."""
        ...

    def load(self, state: Mapping[str, float]) -> None:
        """Go on from what a checkpoint kept."""
        ...


class Ranks(Protocol):
    """The processes that train one model together, as each of them, a rank, sees them.

    Every method but `cut`, `rows_of`, `trains` and `part_of` is for all ranks to call at the same time.
    """

    @property
    def is_first(self) -> bool:
        """Whether this rank writes what is kept."""
        ...

    def cut(self, batch: Any) -> Any:
        """What of a whole batch this rank computes."""
        ...

    def rows_of(self, share: Any) -> int:
        """How many samples the whole batch has of which this is a rank's share."""
        ...

    def trains(self, name: str) -> bool:
        """Whether this rank trains a parameter of the model, or its part of it."""
        ...

    def joined(self, share: Any) -> Any:
        """The whole batch, from every rank's share of it."""
        ...

    def told_by_all(self, told: dict[str, Any]) -> list[dict[str, Any]]:
        """What every rank tells, in the order of their numbers."""
        ...

    def strayed(self, model: torch.nn.Module) -> list[tuple[str, int, float]]:
        """Parameters and buffers that several ranks hold whole, or the same part of, and that are not the same: the
        name, the rank, and how far it is from the first that holds it, beside its norm."""
        ...

    def whole(self, tensors: Mapping[str, torch.Tensor | None]) -> dict[str, torch.Tensor | None]:
        """Tensors by their names as one process would have them, from the parts that the ranks hold."""
        ...

    def part_of(self, whole: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """What of a whole tensor this rank holds where `like` is."""
        ...

    def load(self, model: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
        """Put whole tensors into a model, each rank its part."""
        ...

    def refresh(self, model: torch.nn.Module) -> None:
        """Bring what other ranks have learned into a model that this rank holds a part of."""
        ...

    def meet(self, purpose: str) -> None:
        """Wait until all ranks are here."""
        ...


class Several(Protocol):
    """Takes steps of an epoch in one go, cutting the batches itself."""

    def __call__(self, epoch: int, first: int, most: int) -> torch.Tensor | None:
        """Up to `most` steps, on the batches from number `first` on; their losses, at least one. None where the next
        batch has to be taken by itself."""
        ...


Context = Callable[[], AbstractContextManager[Any]]


@dataclasses.dataclass(frozen=True)
class Rig:
    """All that a training step uses. Techniques replace its parts; what they replaced they name in `lineage`.

    `model` is the module that the user's factory made, whose parameters keep their names. `forward` computes the loss
    of a batch with it. `around` are contexts that a forward pass runs in, `outside` those that a whole run does.
    `update` takes the optimizer's step. `parts` is in how many parts a batch is computed, `weight` what each part holds
    of the batch's mean. `recomputes` says that the backward pass computes parts of the forward pass again. `gradients`,
    where there is one, sets the gradients of a whole batch and returns its loss, in place of both passes. `several`,
    where there is one, takes steps of an epoch in one go, the same as one by one. `look`, where steps are recorded,
    raises StepChanged if the last one would be another one by now. `scaling` scales the loss and takes the optimizer's
    step in place of `update`. `notes` is what techniques found out that the reader of a proof should know. `ranks`
    are the processes that train together; None where there is one. Where each of them computes a share of every batch
    with a model that it holds whole, `spread` makes `gradients` of another way to set those of a share; None where
    there is one process, or where parts of the model are on others.
    """

    model: torch.nn.Module
    optimizer: Optimizer
    forward: Callable[[Any], torch.Tensor]
    feed: Feed
    update: Callable[[], Any]
    weight: Callable[[Any], float]
    schedule: LRScheduler | None = None
    around: tuple[Context, ...] = ()
    outside: tuple[Context, ...] = ()
    parts: int = 1
    recomputes: bool = False
    gradients: Callable[[Any], torch.Tensor] | None = None
    several: Several | None = None
    look: Callable[[], None] | None = None
    scaling: Scaling | None = None
    lineage: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    ranks: Ranks | None = None
    spread: Callable[[Callable[[Any], torch.Tensor]], Callable[[Any], torch.Tensor]] | None = None

    def replace(self, **changes: Any) -> Rig:
        """A copy with other values."""
        return dataclasses.replace(self, **changes)
