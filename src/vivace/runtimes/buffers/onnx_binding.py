"""ONNX Runtime called through its bindings: for shapes that come again, its inputs and outputs keep their places."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vivace.core.signature import Signature
from vivace.runtimes.buffers import held
from vivace.runtimes.calls import torch_dtype
from vivace.runtimes.settings.around import Run

MOST_BOUND = 32
"""Shapes of calls for which buffers are kept."""


def shapes_follow(signature: Signature) -> bool:
    """Whether the shapes of a call's inputs tell those of its outputs: nothing but the batch is free there."""
    specs = signature.outputs
    return all(n is not None or axis == spec.batch_axis for spec in specs for axis, n in enumerate(spec.shape))


class Bound:
    """Calls of small tensors in a shape that comes again go through bound buffers; others go through `call`.

    `kept` are the names of the session's inputs with the flat input that each one takes, `names` those of its outputs.
    """

    def __init__(
        self, session: Any, kept: list[tuple[str, int]], names: list[str], signature: Signature, call: Run
    ) -> None:
        self._session = session
        self._kept = kept
        self._names = names
        self._dtypes = [torch_dtype(spec.dtype) for spec in signature.inputs]
        self._call = call
        self._known: dict[tuple[torch.Size, ...], Run] = {}

    def __call__(self, leaves: Sequence[Tensor]) -> Sequence[Tensor]:
        """Flat tensors in, flat tensors out."""
        shapes = tuple([leaf.shape for leaf in leaves])
        bound = self._known.get(shapes)
        if bound is not None:
            return bound(leaves)
        answers = self._call(leaves)
        if len(self._known) < MOST_BOUND:
            self._known[shapes] = self._bound(shapes, answers)
        return answers

    def _bound(self, shapes: tuple[torch.Size, ...], answers: Sequence[Tensor]) -> Run:
        with held.making_buffers():
            inputs = [(i, torch.zeros(shapes[i], dtype=self._dtypes[i], device="cpu")) for _, i in self._kept]
            outputs = [torch.empty_like(answer) for answer in answers]
        fed = [buffer for _, buffer in inputs]
        is_small = max(map(held.size_of, (fed, outputs))) <= held.COPIED_BYTES
        if not is_small or not all(buffer.numel() for buffer in (*fed, *outputs)):
            return self._call
        binding = self._session.io_binding()
        for (name, _), buffer in zip(self._kept, fed, strict=True):
            binding.bind_input(name, *_place(buffer))
        for name, buffer in zip(self._names, outputs, strict=True):
            binding.bind_output(name, *_place(buffer))
        run = functools.partial(self._session.run_with_iobinding, binding)
        bound = held.held(held.copies(inputs), run, [(buffer, buffer.dtype) for buffer in outputs])
        return self._or_plainly(shapes, bound)

    def _or_plainly(self, shapes: tuple[torch.Size, ...], bound: Run) -> Run:
        """The bound run, until it fails where the plain call does not: a file may say of its outputs what is not so."""

        def call(leaves: Sequence[Tensor]) -> Sequence[Tensor]:
            try:
                return bound(leaves)
            except Exception:  # noqa: BLE001  ONNX Runtime has a class of error for each of its status codes
                answers = self._call(leaves)
                self._known[shapes] = self._call
                return answers

        return call


def _place(buffer: Tensor) -> tuple[str, int, Any, list[int], int]:
    """Where a buffer lies and what it holds, in the order of ONNX Runtime's bindings."""
    return "cpu", 0, buffer.numpy().dtype.type, list(buffer.shape), buffer.data_ptr()
