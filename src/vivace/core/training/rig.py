"""The rig that a plan makes of a job: the parts that one training step uses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
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


Context = Callable[[], AbstractContextManager[Any]]


@dataclasses.dataclass(frozen=True)
class Rig:
    """All that a training step uses. Techniques replace its parts; what they replaced they name in `lineage`.

    `model` is the module that the user's factory made, whose parameters keep their names. `forward` computes the loss
    of a batch with it. `around` are contexts that a forward pass runs in, `outside` those that a whole run does.
    `update` takes the optimizer's step. `parts` is in how many parts a batch is computed, `weight` what each part holds
    of the batch's mean. `notes` is what techniques found out that the reader of a proof should know.
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
    whole_step: Callable[[Any], torch.Tensor] | None = None
    lineage: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def replace(self, **changes: Any) -> Rig:
        """A copy with other values."""
        return dataclasses.replace(self, **changes)
