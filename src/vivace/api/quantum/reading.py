"""The linear layers of what the user gave, with the numbers that they met in its example call."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from vivace.api.target import resolve_workload
from vivace.core.errors import UsageError
from vivace.core.structure import normalize_inputs
from vivace.core.workload import Workload
from vivace.runtimes.calls import flat_call
from vivace.runtimes.capture import capture
from vivace.runtimes.graphs.linear import LinearLayer, linear_layers
from vivace.runtimes.source import example_inputs, open_module, open_source

ONNX = ".onnx"


@dataclasses.dataclass(frozen=True)
class ReadModel:
    """A model's name and linear layers, and sentences on products that were left out."""

    name: str
    layers: tuple[LinearLayer, ...]
    notes: tuple[str, ...]

    def layer(self, wanted: str | None) -> LinearLayer:
        """The layer that a user's name or pattern means: its label, its path or its node; without a name the layer with
        the most multiplications. Raises UsageError where none is meant, or several are."""
        if wanted is None:
            return max(self.layers, key=lambda layer: layer.products * layer.elements)
        found = [one for one in self.layers if one.label == wanted] or [
            one for one in self.layers if one.layer.answers_to(wanted)
        ]
        if len(found) != 1:
            there = ", ".join(layer.label for layer in self.layers[:12])
            more = f" and {len(self.layers) - 12} more" if len(self.layers) > 12 else ""
            said = "no linear layer answers" if not found else f"{len(found)} linear layers answer"
            raise UsageError(f"layer (--layer) received {wanted!r}, which {said} to; give one of {there}{more}")
        return found[0]


def read_model(target: Workload | str | Path) -> ReadModel:
    """Capture the model, run its graph once on the example call, and keep what its linear layers met.

    Raises UsageError for what is no Workload or target, and where the model has no linear layer.
    """
    work = _workload(target)
    if isinstance(work.model, str | Path) and Path(work.model).suffix == ONNX:
        from vivace.runtimes.graphs.onnx_linear import onnx_linear_layers

        inputs = work.inputs if work.inputs is not None else example_inputs(Path(work.model))
        found, notes = onnx_linear_layers(Path(work.model), normalize_inputs(inputs))
    else:
        found, notes = _captured(work)
    if not found:
        raise UsageError(
            f"{work.name or 'the model'} has no linear layer that can be read, so there is nothing to compute with "
            f"quantum circuits; allowed are linear layers, products with weights and convolutions. {' '.join(notes)}"
        )
    return ReadModel(work.name or "model", found, notes)


def _workload(target: Workload | str | Path) -> Workload:
    if isinstance(target, Workload):
        return target
    if isinstance(target, str | Path):
        return resolve_workload(str(target))
    raise UsageError(
        f"quantum received a {type(target).__name__}; allowed are a vivace.Workload, and a target as text such as "
        "work.py:name or a model file"
    )


def _captured(work: Workload) -> tuple[tuple[LinearLayer, ...], tuple[str, ...]]:
    is_file = isinstance(work.model, str | Path)
    module = open_module(Path(str(work.model))) if is_file else open_source(work.model)
    if work.inputs is not None:
        inputs = work.inputs
    elif work.mix:
        inputs = work.mix[0][0]
    else:
        inputs = example_inputs(Path(str(work.model)))
    leaves, _, _ = flat_call(module, inputs)
    return linear_layers(capture(module, inputs).model, leaves)  # type: ignore[arg-type]
