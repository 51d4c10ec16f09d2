"""A worker's service that looks at the user's model: is it sound, can it be captured, what is it made of."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from vivace.core.cost import Cost
from vivace.core.errors import UnsupportedModel, UsageError, WorkerFailure
from vivace.core.program import Form, Model
from vivace.core.structure import Structure, flatten, normalize_inputs
from vivace.core.technique import Effect
from vivace.core.workload import Mix
from vivace.data import samples
from vivace.measure.clock import SystemClock
from vivace.measure.fidelity import compare_outputs
from vivace.runtimes import batches, eager, source, store
from vivace.runtimes.calls import as_tensor, dtype_name, flat_call, is_tensor
from vivace.runtimes.capture import Capture, capture
from vivace.runtimes.graphs import counts, layers
from vivace.runtimes.program import Program
from vivace.search.alone import LEAST_SQNR_DB
from vivace.search.calls.joining import Joining
from vivace.search.calls.mix import Examples, check_accepted, examples_of

NOTHING = torch.empty(0)
"""Stands for an answer that is missing."""


class Inspection:
    """Holds the user's model in a process of its own and answers questions about it."""

    def __init__(self, original: Any, file: Path | None) -> None:
        self.original = original
        self.file = file
        self._device = source.device_of(original)

    def example(self, to: str) -> None:
        """Store the example call that a bare model file implies."""
        self._store([source.example_inputs(self._path())], to)

    def adopt(self, given: str, to: str) -> None:
        """Store the user's example calls of a model file under the names that the file gives its parameters."""
        stored = samples.read(Path(given))
        calls = list(stored.each())
        self._store([args or kwargs for args, kwargs in calls], to, stored.mix)

    def _store(self, inputs: Sequence[Any], to: str, mix: Mix | None = None) -> None:
        calls = [named_call(self.original, one) for one in inputs]
        samples.write(Path(to), [leaves for leaves, _, _ in calls], calls[0][1], calls[0][2], mix)

    def check(self, examples: str) -> dict[str, Any]:
        """Call the model on the examples: about how long a call takes, and how large the largest answer is.

        Raises UsageError when it fails, is random, or answers with NaN.
        """
        calls = samples.read(Path(examples))
        found = [self._checked(calls, index) for index in range(len(calls))]
        weights = examples_of(calls).weights
        seconds = sum(weight * one["seconds"] for weight, one in zip(weights, found, strict=True))
        return {"seconds": seconds, "answer_bytes": max(one["answer_bytes"] for one in found)}

    def _checked(self, calls: samples.StoredCalls, index: int) -> dict[str, Any]:
        clock = SystemClock()
        try:
            first = self._answer(calls, index)
            started = clock.now()
            again = self._answer(calls, index)
            seconds = clock.now() - started
        except (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError, AssertionError) as error:
            raise UsageError(
                f"the model fails on the example inputs: {type(error).__name__}: {error}; it was called "
                f"with {_describe(calls[index])}"
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

    def capture(
        self, example: str, examples: str, varying: Sequence[Sequence[int]], fixed_shapes: bool, to: str
    ) -> dict[str, Any]:
        """Capture the model by its example as a program folder, and count a call of the examples.

        Raises UnsupportedModel, also when the program does not repeat the model on one of several examples.
        """
        calls, asked = samples.read(Path(example)), examples_of(samples.read(Path(examples)))
        model, axes, note = self._captured(calls, [frozenset(free) for free in varying], fixed_shapes)
        check_accepted(asked, model.signature, note)
        self._check_repeated(model, samples.read(Path(examples)))
        store.save(model, Path(to))
        return {
            "signature": model.signature.to_json(),
            "facts": sorted(fact.name for fact in counts.facts_of(model)),
            "cost": dataclasses.asdict(_mean_cost(model, asked)),
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
        if self._device == "cpu":
            found = capture(self.original, args or kwargs, varying=varying, fixed_shapes=fixed_shapes)
            return found.model, found.batch_axes, found.note
        found = self._captured_beside(args or kwargs, varying, fixed_shapes)
        return (
            found.model.replace(settings=found.model.settings.replace(device=self._device)),
            found.batch_axes,
            found.note,
        )

    def _captured_beside(self, inputs: Any, varying: Sequence[frozenset[int]], fixed_shapes: bool) -> Capture:
        """A capture of a copy on the CPU, where programs are stored and changed, of a model that lies on a device."""
        try:
            return capture(copy.deepcopy(self.original).cpu(), inputs, varying=varying, fixed_shapes=fixed_shapes)
        except (RuntimeError, TypeError, ValueError) as error:
            raise UnsupportedModel(
                f"the model lies on {self._device} and does not run on the CPU, where it is captured: "
                f"{type(error).__name__}: {error}. Create tensors in its forward on the inputs' device (x.device)"
            ) from error

    def _check_repeated(self, model: Model, calls: samples.StoredCalls) -> None:
        """Raise UnsupportedModel when the graph is another computation in one of the shapes: an export may fix a size
        that some operators (a recurrent cell) take all the same and others do not."""
        if calls.mix is None or model.form is not Form.TORCH:
            return
        for index, leaves in enumerate(calls):
            expected = self._answer(calls, index)
            try:
                received = eager.run_flat(model.program, leaves)
            except (RuntimeError, ValueError, IndexError, TypeError):
                received = []
            if not all(batches.close(*pair) for pair in itertools.zip_longest(expected, received, fillvalue=NOTHING)):
                raise UnsupportedModel(
                    f"the captured graph does not repeat the model for {examples_of(calls).name(index)}, which is in "
                    "the mix: its forward depends on a size in a way that a graph cannot hold. Optimize for one shape "
                    "(inputs=...), or make the model free in it"
                )

    def reference(self, calls: str, to: str) -> dict[str, Any]:
        """Store what the model answers in float64: the referee for rounding. Says why where it cannot be had."""
        if not isinstance(self.original, nn.Module):
            return {"reason": "the original is not a PyTorch module, so it has no float64 form"}
        stored = samples.read(Path(calls))
        try:
            double = copy.deepcopy(self.original).double()
            # PyTorch 2.13's own kernel is wrong in float64 beside a float32 mask on processors with AVX2
            with sdpa_kernel([SDPBackend.MATH]):
                outputs = [self._answer(stored, index, double) for index in range(len(stored))]
            if not all(
                leaf.dtype is torch.float64 for answer in outputs for leaf in answer if leaf.is_floating_point()
            ):
                return {"reason": "the model answers in another precision although it was asked in float64"}
        except Exception as error:  # the user's code in a precision that it was not written for  # noqa: BLE001
            return {"reason": f"the model does not run in float64: {type(error).__name__}: {str(error)[:200]}"}
        samples.write_outputs(Path(to), outputs, self._structure(stored))
        return {"reason": ""}

    def together(
        self, alone: str, joined: str, inputs: Sequence[int | None], outputs: Sequence[int | None]
    ) -> dict[str, Any]:
        """Whether the call that several make together gives each one's own answers, and the seconds of both ways.

        `alone` is a folder of those calls and `joined` one of the call that they make.
        """
        separate, whole = samples.read(Path(alone)), samples.read(Path(joined))
        clock, joining = SystemClock(), Joining(len(separate), tuple(inputs), tuple(outputs))
        try:
            self._answer(whole, 0)
            started = clock.now()
            wanted = [self._answer(separate, index) for index in range(len(separate))]
            between = clock.now()
            answers = [self._answer(whole, index) for index in range(len(whole))]
            ended = clock.now()
            sizes = [answer[0].shape[outputs[0] or 0] for answer in wanted]
            found = compare_outputs(wanted, joining.parted(answers, sizes), outputs)
        except (RuntimeError, ValueError, IndexError, TypeError, WorkerFailure):  # it takes one number of samples only
            return {"agrees": False, "alone_seconds": 0.0, "joined_seconds": 0.0}
        agrees = found.sqnr_db >= LEAST_SQNR_DB[Effect.ROUNDED]
        return {"agrees": agrees, "alone_seconds": between - started, "joined_seconds": ended - between}

    def _answer(self, calls: samples.StoredCalls, index: int, double: nn.Module | None = None) -> list[Tensor]:
        args, kwargs = calls.arguments(index)
        if double is not None:
            args, kwargs = _doubled(args), _doubled(kwargs)
        with torch.no_grad():
            answer = (self.original if double is None else double)(*self._placed(args), **self._placed(kwargs))
        leaves, _ = flatten(answer, is_tensor)
        return leaves if self._device == "cpu" else [leaf.cpu() for leaf in leaves]

    def _placed(self, value: Any) -> Any:
        """The arguments where the model lies."""
        if self._device == "cpu":
            return value
        leaves, structure = flatten(value, torch.is_tensor)
        return structure.build([leaf.to(self._device) for leaf in leaves])

    def _structure(self, calls: samples.StoredCalls) -> Structure:
        args, kwargs = calls.arguments(0)
        with torch.no_grad():
            return flatten(self.original(*self._placed(args), **self._placed(kwargs)), is_tensor)[1]

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


def _mean_cost(model: Model, examples: Examples) -> Cost:
    """The work of one call; of calls in several shapes the mean by their weights."""
    costs = [counts.cost_of(model, leaves) for leaves in examples.calls]
    weighed = list(zip(examples.weights, costs, strict=True))
    return costs[0].replace(
        flops=sum(weight * cost.flops for weight, cost in weighed),
        activation_bytes=sum(weight * cost.activation_bytes for weight, cost in weighed),
    )


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
