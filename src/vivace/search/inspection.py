"""A worker's service that looks at the user's model: is it sound, can it be captured, what is it made of."""

from __future__ import annotations

import copy
import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vivace.core.errors import UsageError
from vivace.core.program import Model
from vivace.core.structure import Structure, flatten, normalize_inputs
from vivace.data import samples
from vivace.measure.clock import SystemClock
from vivace.runtimes import source, store
from vivace.runtimes.calls import as_tensor, dtype_name, flat_call, is_tensor
from vivace.runtimes.capture import capture
from vivace.runtimes.graphs import counts, layers
from vivace.runtimes.program import Program


class Inspection:
    """Holds the user's model in a process of its own and answers questions about it."""

    def __init__(self, original: Any, file: Path | None) -> None:
        self.original = original
        self.file = file

    def example(self, to: str) -> None:
        """Store the example call that a bare model file implies."""
        self._store(source.example_inputs(self._path()), to)

    def adopt(self, given: str, to: str) -> None:
        """Store the user's example call of a model file under the names that the file gives its parameters."""
        args, kwargs = samples.read(Path(given)).arguments(0)
        self._store(args or kwargs, to)

    def _store(self, inputs: Any, to: str) -> None:
        leaves, call, positional = named_call(self.original, inputs)
        samples.write(Path(to), [leaves], call, positional)

    def check(self, example: str) -> dict[str, Any]:
        """Call the model on the example: about how long it takes, and how large its answer is.

        Raises UsageError when it fails, is random, or answers with NaN.
        """
        calls = samples.read(Path(example))
        clock = SystemClock()
        try:
            first = self._answer(calls, 0)
            started = clock.now()
            again = self._answer(calls, 0)
            seconds = clock.now() - started
        except (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError, AssertionError) as error:
            raise UsageError(
                f"the model fails on the example inputs: {type(error).__name__}: {error}; it was called "
                f"with {_describe(calls[0])}"
            ) from error
        if not all(torch.equal(_comparable(a), _comparable(b)) for a, b in zip(first, again, strict=True)):
            raise UsageError(
                "the model answers differently to the same input (it is random, or keeps a state), so no "
                "candidate could be compared with it; make its forward deterministic"
            )
        if not all(bool(torch.isfinite(leaf).all()) for leaf in first if leaf.dtype.is_floating_point):
            raise UsageError(
                "the model answers with NaN or infinite values on the example inputs; give an example "
                "that it can answer"
            )
        return {"seconds": seconds, "answer_bytes": sum(leaf.numel() * leaf.element_size() for leaf in first)}

    def pace(self, calls: str) -> dict[str, float]:
        """Seconds of one call, the middle of three after a first one."""
        stored = samples.read(Path(calls))
        clock = SystemClock()
        seconds = []
        for _ in range(4):
            started = clock.now()
            self._answer(stored, 0)
            seconds.append(clock.now() - started)
        return {"seconds": statistics.median(seconds[1:])}

    def capture(self, example: str, varying: Sequence[Sequence[int]], fixed_shapes: bool, to: str) -> dict[str, Any]:
        """Capture the model as a program folder, and count it. Raises UnsupportedModel."""
        calls = samples.read(Path(example))
        model, axes, note = self._captured(calls, [frozenset(free) for free in varying], fixed_shapes)
        store.save(model, Path(to))
        return {
            "signature": model.signature.to_json(),
            "facts": sorted(fact.name for fact in counts.facts_of(model)),
            "cost": dataclasses.asdict(counts.cost_of(model, calls[0])),
            "operators": list(counts.operators_of(model)),
            "layers": [dataclasses.asdict(layer) for layer in layers.layers_of(model)],
            "batch_axes": list(axes),
            "note": note,
        }

    def _captured(
        self, calls: samples.StoredCalls, varying: Sequence[frozenset[int]], fixed_shapes: bool
    ) -> tuple[Model, Sequence[int | None], str]:
        """The model in a form that techniques work on, its inputs' batch axes, and what could not be kept general."""
        if isinstance(self.original, Program):
            model = source.onnx_model(self._path())
            return model, [spec.batch_axis for spec in model.signature.inputs], ""
        args, kwargs = calls.arguments(0)
        found = capture(self.original, args or kwargs, varying=varying, fixed_shapes=fixed_shapes)
        return found.model, found.batch_axes, found.note

    def reference(self, calls: str, to: str) -> dict[str, Any]:
        """Store what the model answers in float64: the referee for rounding. Says why where it cannot be had."""
        if not isinstance(self.original, nn.Module):
            return {"reason": "the original is not a PyTorch module, so it has no float64 form"}
        stored = samples.read(Path(calls))
        try:
            double = copy.deepcopy(self.original).double()
            outputs = [self._answer(stored, index, double) for index in range(len(stored))]
            if not all(
                leaf.dtype is torch.float64 for answer in outputs for leaf in answer if leaf.is_floating_point()
            ):
                return {"reason": "the model answers in another precision although it was asked in float64"}
        except Exception as error:  # the user's code in a precision that it was not written for  # noqa: BLE001
            return {"reason": f"the model does not run in float64: {type(error).__name__}: {str(error)[:200]}"}
        samples.write_outputs(Path(to), outputs, self._structure(stored))
        return {"reason": ""}

    def _answer(self, calls: samples.StoredCalls, index: int, double: nn.Module | None = None) -> list[Tensor]:
        args, kwargs = calls.arguments(index)
        if double is not None:
            args, kwargs = _doubled(args), _doubled(kwargs)
        with torch.no_grad():
            answer = (self.original if double is None else double)(*args, **kwargs)
        leaves, _ = flatten(answer, is_tensor)
        return leaves

    def _structure(self, calls: samples.StoredCalls) -> Structure:
        args, kwargs = calls.arguments(0)
        with torch.no_grad():
            return flatten(self.original(*args, **kwargs), is_tensor)[1]

    def _path(self) -> Path:
        if self.file is None:
            raise UsageError("inputs is missing; give one example call, such as inputs=(x,)")
        return self.file


def open_inspection(arguments: Mapping[str, Any], payload: object) -> Inspection:
    """The worker's entry. `arguments`: file (a path or None); `payload`: the user's module when there is no file."""
    file = Path(arguments["file"]) if arguments.get("file") else None
    original = source.open_source(file if file is not None else payload)
    return Inspection(original, file)


def named_call(original: Any, inputs: Any) -> tuple[list[Tensor], Structure, int]:
    """A call's flat tensors, its structure by parameter name, and how many arguments go by position."""
    if not isinstance(original, Program):
        return flat_call(original, inputs)
    args, kwargs = normalize_inputs(inputs)
    leaves, call = flatten(original.signature.named(args, kwargs), is_tensor)
    return [as_tensor(leaf) for leaf in leaves], call, len(args)


def _doubled(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.double() if value.dtype.is_floating_point else value
    if isinstance(value, dict):
        return {key: _doubled(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_doubled(item) for item in value)
    return value


def _comparable(leaf: Tensor) -> Tensor:
    return torch.nan_to_num(leaf) if leaf.dtype.is_floating_point else leaf


def _describe(leaves: Sequence[Tensor]) -> str:
    return ", ".join(f"{dtype_name(leaf.dtype)}{list(leaf.shape)}" for leaf in leaves) or "no tensors"
