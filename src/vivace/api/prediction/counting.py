"""Counts a job without timing it: the operators, weights and memory of one step, for `predict`."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from vivace.api.prediction.capacity import check_fits, limited
from vivace.core.errors import UnsupportedModel, UsageError
from vivace.core.prediction.work import Operator, OperatorKind, Purpose
from vivace.core.program import Form, Model
from vivace.core.training.job import Training
from vivace.core.training.rig import Rig
from vivace.core.workload import Workload
from vivace.devices.prediction.lines import Step
from vivace.runtimes import source
from vivace.runtimes.calls import example_leaves, flat_call
from vivace.runtimes.capture import capture, traced
from vivace.runtimes.graphs import counts, recorder
from vivace.training.feed import feed_of
from vivace.training.rig import assemble, samples_in, seed_everything, seeded


def counted_workload(work: Workload) -> Step:
    """One call of a workload's example, on its exported graph and on tensors without data, so that nothing is computed;
    a model that does not follow that runs here instead, on the processor.

    Activations are the most that the graph holds at once; of an ONNX file all that operators write, which is more.
    Raises UnsupportedModel for a model that cannot be captured, MissingExtra for a file whose reader is not installed.
    """
    file = work.file
    if file is not None and file.suffix == ".onnx":
        return _counted_file(source.onnx_model(file), work)
    module = source.open_module(file) if file is not None else work.model
    assert isinstance(module, nn.Module)
    if not work.examples and file is None:
        raise UsageError(
            "inputs is missing; give one example call, such as inputs=(x,), so that its work can be counted"
        )
    example = work.examples[0] if file is None or work.examples else source.example_inputs(file)
    with torch.no_grad():
        model, tally = _tallied(module if file is not None else module.eval(), example)
    leaves, operators = flat_call(module, example)[0], recorder.operators_of(model, tally.nodes)
    parameters = sum(value.numel() for value in module.parameters())
    found = _call(leaves, operators, parameters, tally.cost.weight_bytes, tally.peak_bytes, tally.cost.precision)
    return dataclasses.replace(found, unread_bytes=tally.unread_bytes)


def _tallied(module: nn.Module, example: Any) -> tuple[Model, counts.Tally]:
    """The graph of a call and what is counted of it, without computing where that works."""
    leaves = flat_call(module, example)[0]
    try:
        model = traced(module, example)
        return model, counts.tally_without_data(model, leaves)
    except UnsupportedModel:
        model = capture(module, example, fixed_shapes=True).model
        return model, counts.tally_of(model, leaves)


def _counted_file(model: Model, work: Workload) -> Step:
    """An ONNX file, whose operators are known together and not one by one: they are taken as equal in size."""
    assert model.form is Form.ONNX
    example = work.examples[0] if work.examples else None
    leaves = example_leaves(model.signature) if example is None else [*_tensors(example)]
    cost = counts.cost_of(model, leaves)
    convolutions = cost.flops * cost.convolution_share
    products = [
        Operator("convolutions", OperatorKind.CONVOLUTION, convolutions, 0.0),
        Operator("products", OperatorKind.PRODUCT, cost.flops - convolutions, cost.weight_bytes),
    ]
    others = max(1, cost.operators - len(products))
    moving = [Operator("others", OperatorKind.OTHER, 0.0, 2 * cost.activation_bytes / others)] * others
    return _call(leaves, [*products, *moving], int(cost.weight_bytes / 4), cost.weight_bytes, cost.activation_bytes)


def _call(
    leaves: Sequence[Tensor],
    operators: Sequence[Operator],
    parameters: int,
    weight_bytes: float,
    activation_bytes: float,
    precision: str = "f32",
) -> Step:
    batch = int(samples_in(leaves))
    return Step(
        Purpose.INFERENCE, batch, parameters, weight_bytes, 0.0, 0.0, activation_bytes / batch,
        lambda _: operators, narrow=precision in ("bf16", "f16"),
    )  # fmt: skip


def counted_training(job: Training, batch: int | None = None) -> Step:
    """One update of a job: forward, backward and the optimizer's, for any number of samples.

    Tensors without memory are used (PyTorch's meta device), so that nothing is computed; a job that cannot run on them
    runs on the processor instead, with at most its own batch. `batch` is that of a step, the job's own unless it is
    given. Raises UsageError for a job that cannot be used, EnvironmentFault for one that this machine cannot hold.
    """
    with seeded(job.seed), limited():
        counting = _without_memory(job)
        if isinstance(counting, str):
            counting = _Counting(assemble(job), _first(job), to_meta=False)
        return counting.counted(batch or int(samples_in(counting.batch)))


def _without_memory(job: Training) -> _Counting | str:
    """The job on tensors without memory, or why it does not run on them; raises EnvironmentFault where this machine
    could not hold it either."""
    rig = None
    try:
        with torch.device("meta"):
            rig = assemble(job)
        counting = _Counting(rig, _first(job), to_meta=True)
        counting.step(1)
    except (RuntimeError, NotImplementedError, TypeError, AttributeError, ValueError) as failure:
        if isinstance(failure, UsageError):
            raise
        why = next(iter(str(failure).splitlines()), "") or type(failure).__name__
        if rig is not None:
            check_fits(rig, why)
        return why
    return counting


class _Counting:
    """A rig that is counted, and a batch of the user's to make others from."""

    def __init__(self, rig: Rig, batch: Any, *, to_meta: bool) -> None:
        self.rig, self.batch, self._to_meta = rig, batch, to_meta
        self.step = functools.cache(self._step)

    def counted(self, batch: int) -> Step:
        """The job's step; its bytes of activations are those of one sample in a batch of two."""
        own = int(samples_in(self.batch))
        self._check(batch, own)
        few = min(2, own)
        self.step(few)
        parameters = list(self.rig.model.parameters())
        held = [*parameters, *self.rig.model.buffers()]
        states = [leaf for state in self.rig.optimizer.state.values() for leaf in _tensors(state)]
        kept = recorder.kept_bytes(lambda: self.rig.forward(self._of(few)), held)
        learning = [parameter for parameter in parameters if parameter.requires_grad]
        return Step(
            Purpose.TRAINING, batch, sum(one.numel() for one in parameters), _bytes(held), _bytes(learning),
            _bytes(states), kept / few, self.step, narrow=all(one.element_size() == 2 for one in parameters),
            sample_bytes=_bytes(_tensors(self.batch)) / own,
        )  # fmt: skip

    def _check(self, samples: int, own: int) -> None:
        """Raise UsageError for more samples than the user's own batch has, where others cannot be made from it."""
        if not self._to_meta and samples > own:
            raise UsageError(
                f"batch is {samples}, and this job cannot be counted on tensors without memory; allowed is up to {own}"
            )

    def _step(self, samples: int) -> tuple[Operator, ...]:
        """The operators of an update; the optimizer's work on all tensors together, as they do on accelerators."""
        self._check(samples, int(samples_in(self.batch)))
        self.rig.optimizer.zero_grad(set_to_none=True)
        batch = self._of(samples)
        passes = recorder.recorded(lambda: self.rig.forward(batch).backward())  # type: ignore[no-untyped-call]
        update = recorder.recorded(self.rig.update)
        return (*passes, *recorder.merged(update))

    def _of(self, samples: int) -> Any:
        """So many samples: tensors without memory, or the first of the user's batch."""

        def resized(leaf: Any) -> Any:
            if not torch.is_tensor(leaf):
                return leaf
            if not self._to_meta:
                return leaf[:samples] if leaf.ndim else leaf
            shape = (samples, *leaf.shape[1:]) if leaf.ndim else ()
            return torch.empty(shape, dtype=leaf.dtype, device="meta")

        return pytree.tree_map(resized, self.batch)


def _first(job: Training) -> Any:
    """The first batch of the job, as its own data give it. No model is made: it may be larger than this machine."""
    seed_everything(job.seed)
    first = next(itertools.islice(feed_of(job).epoch(0), 1), None)
    if first is None:
        raise UsageError("data gives no batch; give at least one")
    return first


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(value) if torch.is_tensor(leaf)]


def _bytes(tensors: Sequence[Tensor]) -> float:
    return float(sum(tensor.numel() * tensor.element_size() for tensor in tensors))
