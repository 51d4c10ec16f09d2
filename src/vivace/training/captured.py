"""Gradients of batches of one shape by a captured graph: batches are copied in, and every kernel starts at once."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from vivace.core.errors import StepChanged
from vivace.core.training.rig import Rig
from vivace.devices.recorder import Recorder
from vivace.training.agreement import apart
from vivace.training.checkpoint import Generators
from vivace.training.feeding.transfer import device_of
from vivace.training.standing import Standing
from vivace.training.step import accumulate

APART = 1e-3
"""Gradients of the same kernels differ by less, whatever order sums run in."""
WARM_STEPS = 3
"""Computed on the capturing stream before, as PyTorch asks for: libraries set themselves up in them."""


class CapturedGradients:
    """Sets gradients as forward and backward passes do. The first shape of batch is captured, others are computed as
    before, as is every batch until the graph is there. A graph knows tensors by their addresses, and is of a model that
    stands as it did: after a tensor of the model has moved, or was frozen or freed, or somebody set an attribute of a
    module, the step is captured anew. What cannot be captured is computed as before, with a warning."""

    def __init__(self, rig: Rig, recorder: Recorder) -> None:
        self._rig = rig
        self._recorder = recorder
        self._standing = Standing(rig.model)
        self._shapes: Any = None
        self._seen = 0
        self._captured: Any = None
        self._inputs: list[Tensor] = []
        self._loss: Tensor | None = None
        self._replay: Callable[[], None] | None = None
        self._gradients: list[tuple[Tensor, Tensor | None]] = []
        self._has_failed = False
        self._last: Any = None

    def __call__(self, batch: Any) -> Tensor:
        """The loss of a batch; its gradients are in the parameters afterwards."""
        leaves, spec = pytree.tree_flatten(batch)
        shapes = (spec, *((leaf.shape, leaf.dtype) if torch.is_tensor(leaf) else leaf for leaf in leaves))
        self._shapes = shapes if self._shapes is None else self._shapes
        if shapes != self._shapes or self._has_failed:
            return self._eagerly(batch)
        self._seen += 1
        if self._seen <= WARM_STEPS:  # from where the graph will find its inputs, or a compiler would begin anew in it
            device = device_of(self._rig.model)
            near = [leaf.to(device) if torch.is_tensor(leaf) else leaf for leaf in leaves]
            return self._recorder.warm(lambda: self._eagerly(pytree.tree_unflatten(near, spec)))
        self._last = batch
        given = [leaf for leaf in leaves if torch.is_tensor(leaf)]
        if (self._replay is None or self._captured != self._state()) and not self._begin(leaves, spec):
            return self._eagerly(batch)
        for kept, leaf in zip(self._inputs, given, strict=True):
            kept.copy_(leaf, non_blocking=True)
        assert self._replay is not None and self._loss is not None
        self._replay()
        for parameter, gradient in self._gradients:
            parameter.grad = gradient
        return self._loss.clone()

    def look(self) -> None:
        """Raise StepChanged where autograd makes other gradients of the last batch by now than the graph does: of a
        loss that has become another one, which no graph can see. Generators and buffers stay as they are."""
        if self._replay is None or self._has_failed or self._captured != self._state():
            return
        buffers = [(buffer, buffer.clone()) for buffer in self._rig.model.buffers()]
        now = Generators.now()
        found: list[dict[str, Tensor | None]] = []
        for compute in (self._eagerly, self):
            compute(self._last)
            named = self._rig.model.named_parameters()
            found.append({name: None if one.grad is None else one.grad.clone() for name, one in named})
            now.restore()
            with torch.no_grad():
                for buffer, value in buffers:
                    buffer.copy_(value)
        if apart(*found) > APART:
            raise StepChanged(
                "the model computes something else by now than when its step was recorded: train without captured-step "
                "(--without)"
            )

    def _eagerly(self, batch: Any) -> Tensor:
        self._rig.optimizer.zero_grad(set_to_none=True)
        return accumulate(self._rig, batch)

    def _begin(self, leaves: list[Any], spec: Any) -> bool:
        """Capture; whether that could be done."""
        device = device_of(self._rig.model)  # a graph cannot fetch from the host: batches are copied in before it
        kept = [leaf.to(device, copy=True) if torch.is_tensor(leaf) else leaf for leaf in leaves]
        self._inputs = [leaf for leaf in kept if torch.is_tensor(leaf)]
        batch = pytree.tree_unflatten(kept, spec)
        self._rig.optimizer.zero_grad(set_to_none=True)  # so that capturing makes gradients, and a replay writes them
        before = self._standing.now()
        try:
            self._loss, self._replay = self._recorder.record(lambda: accumulate(self._rig, batch))
        except RuntimeError as error:
            self._has_failed = True
            warnings.warn(f"captured-step goes on without its graph: {error}", RuntimeWarning, stacklevel=2)
            return False
        self._gradients = [(parameter, parameter.grad) for parameter in self._rig.model.parameters()]
        self._standing.settle(before)
        self._captured = self._state()
        return True

    def _state(self) -> tuple[Any, ...]:
        """Where the model's tensors are, and how it stands."""
        model = self._rig.model
        pointers = [tensor.data_ptr() for tensors in (model.parameters(), model.buffers()) for tensor in tensors]
        return (*pointers, *self._standing.now())
