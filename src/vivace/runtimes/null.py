"""Form NULL: answers zeros in the signature's output shapes at once; for tests of everything around a runtime."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vivace.core.program import Form, Model
from vivace.core.signature import TensorSpec
from vivace.runtimes.calls import torch_dtype
from vivace.runtimes.program import Program


def load(model: Model) -> Program:
    """A program that answers zeros: as many samples as the call holds, and 1 where another dimension may vary."""
    signature = model.signature

    def run(leaves: Sequence[Tensor]) -> list[Tensor]:
        sizes = [
            leaf.shape[spec.batch_axis]
            for spec, leaf in zip(signature.inputs, leaves, strict=True)
            if spec.batch_axis is not None
        ]
        return [_zeros(spec, sizes[0] if sizes else 1) for spec in signature.outputs]

    return Program(signature, model.settings, run, Form.NULL)


def _zeros(spec: TensorSpec, samples: int) -> Tensor:
    shape = [n if n is not None else samples if axis == spec.batch_axis else 1 for axis, n in enumerate(spec.shape)]
    return torch.zeros(shape, dtype=torch_dtype(spec.dtype))
