"""Copies of a model, each with its part of every batch: DistributedDataParallel around the whole loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import GradBucket
from torch.nn.parallel import DistributedDataParallel

from vivace.distributed.split_tensors import here
from vivace.distributed.world import World


class WholeLoss(nn.Module):
    """The loss as a module, so that whoever wraps it sees every way in which the loss uses the model."""

    def __init__(self, model: nn.Module, loss: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.model = model
        self._loss = loss

    def forward(self, batch: Any) -> Tensor:
        """The loss of a batch."""
        return self._loss(batch)


class Replica:
    """The loss of one of several copies of a model, which is replicated when it is first called: until then another way
    to set gradients may take its place."""

    def __init__(self, model: nn.Module, loss: Callable[[Any], Tensor], world: World) -> None:
        self._whole = WholeLoss(model, loss)
        self._world = world
        self._replica: DistributedDataParallel | None = None

    def __call__(self, batch: Any) -> Tensor:
        """The loss of a batch; going backward from it sums gradients over the copies."""
        if self._replica is None:
            self._replica = replicated(self._whole, self._world)
        found: Tensor = self._replica(batch)
        return found


@torch.no_grad()
def sum_gradients(module: nn.Module, world: World) -> None:
    """Sum the gradients of a module over the ranks that divide a batch, all of one type at once; of a layer that is
    computed in parts, the part that this rank has, with that of the ranks that have the same. A parameter that some
    ranks' rows did not use gets the gradient of the others; one that nobody used gets none, as in one process."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for dtype in dict.fromkeys(parameter.dtype for parameter in parameters):
        kind = [parameter for parameter in parameters if parameter.dtype == dtype]
        used = [parameter.grad is not None for parameter in kind]
        own = [here(parameter).detach() for parameter in kind]
        mine = [here(parameter.grad) if parameter.grad is not None else torch.zeros_like(part)
                for parameter, part in zip(kind, own, strict=True)]  # fmt: skip
        told = torch.tensor(used, dtype=dtype, device=mine[0].device)
        flat = world.sum_over_batch(torch.cat([*(one.flatten() for one in mine), told]), "gradients")
        *parts, counts = torch.split(flat, [*(one.numel() for one in mine), len(kind)])
        users = used if all(used) else counts.tolist()  # reading them waits for a device
        for parameter, part, user in zip(kind, parts, users, strict=True):
            if user:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                whole = here(parameter.grad)
                whole.copy_(part.view_as(whole))


def replicated(module: nn.Module, world: World) -> DistributedDataParallel:
    """A module whose gradients are summed over the ranks that divide a batch, bucket by bucket while the backward pass
    goes on. They are summed, not averaged: each rank's loss is weighted by its share of the batch before.

    Source: Li et al., PyTorch Distributed, VLDB 2020 (arXiv:2006.15704).
    """
    replica = DistributedDataParallel(
        module, process_group=world.batch_mesh.get_group(), broadcast_buffers=False,
        find_unused_parameters=True,
    )  # fmt: skip

    def summed(_: object, bucket: GradBucket) -> torch.futures.Future[Tensor]:
        world.watch.reach(f"the all-reduce of gradients (bucket {bucket.index()})", together=True)
        work = dist.all_reduce(bucket.buffer(), group=world.batch_mesh.get_group(), async_op=True)
        assert work is not None
        found: torch.futures.Future[Tensor] = work.get_future().then(lambda future: future.value()[0])
        return found

    summed.__annotations__.clear()  # DDP compares them with its own classes, and here they are texts
    replica.register_comm_hook(None, summed)
    return replica
