"""Batch normalization over the whole batch, of which each rank holds some rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vivace.distributed.parts import Part
from vivace.distributed.world import World

BatchNorm = nn.modules.batchnorm._BatchNorm


class _Sum(torch.autograd.Function):
    """The sum over the ranks that divide a batch, forward and backward: each rank's loss is a part of one loss."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, world: World) -> Tensor:
        ctx.world = world
        return world.sum_over_batch(value.clone(), "batch statistics")

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.world.sum_over_batch(gradient.contiguous().clone(), "gradients of batch statistics"), None


class WholeBatchNorm(nn.Module):
    """A batch normalization whose statistics are of all ranks' rows; its tensors are those of the one that it replaces.

    PyTorch's SyncBatchNorm does the same on CUDA devices alone, and as if all parts were equal in what counts.
    Source: Ioffe and Szegedy, 2015 (arXiv:1502.03167); statistics over processes: Peng et al., MegDet, CVPR 2018.
    """

    def __init__(self, original: Any, world: World) -> None:
        super().__init__()
        self._original = [original]  # no submodule: its tensors would appear once more
        self._world = world
        self.weight: nn.Parameter | None
        self.bias: nn.Parameter | None
        self.running_mean: Tensor | None
        self.running_var: Tensor | None
        self.num_batches_tracked: Tensor | None
        self.part: Part | None = None
        for name in ("weight", "bias"):
            self.register_parameter(name, getattr(original, name))
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(original, name))

    def forward(self, x: Tensor) -> Tensor:
        """The normalized rows."""
        like = self._original[0]
        if not self.training and self.running_mean is not None:
            return functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=like.eps)
        like._check_input_dim(x)
        axes = [axis for axis in range(x.ndim) if axis != 1]
        counted = 1.0 if self.part is None or self.part.counts else 0.0
        rows = counted * x.numel() / x.shape[1]
        sums = self._sum(torch.cat([counted * x.sum(axes), x.new_tensor([rows])]))
        count = sums[-1].detach()
        mean = (sums[:-1] / count)[(None, slice(None), *[None] * (x.ndim - 2))]
        centred = x - mean
        variance = self._sum(counted * (centred * centred).sum(axes)) / count
        self._remember(mean.flatten(), variance, count, like)
        shape = (1, -1, *[1] * (x.ndim - 2))
        found = centred * torch.rsqrt(variance + like.eps).view(shape)
        if self.weight is not None and self.bias is not None:
            found = found * self.weight.view(shape) + self.bias.view(shape)
        return found

    def _sum(self, value: Tensor) -> Tensor:
        found: Tensor = _Sum.apply(value, self._world)  # type: ignore[no-untyped-call]
        return found

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: Tensor, like: Any) -> None:
        if self.running_mean is None or self.running_var is None or not self.training:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = like.momentum if like.momentum is not None else 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * count / (count - 1), share)


def share_batch_norms(model: nn.Module, world: World) -> list[WholeBatchNorm]:
    """Put one in the place of every batch normalization of a model; they keep their parameters and names."""
    found = []
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, BatchNorm):
                shared = WholeBatchNorm(child, world)
                shared.training = child.training
                setattr(parent, name, shared)
                found.append(shared)
    return found
