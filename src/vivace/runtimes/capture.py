"""Capture the user's module as a flat program: torch.export over flat tensors, for any number of samples if it can."""

from __future__ import annotations

import dataclasses
import os
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from vivace.core.errors import UnsupportedModel, UsageError
from vivace.core.program import Form, Model
from vivace.core.signature import Signature
from vivace.core.structure import Structure, flatten
from vivace.runtimes import batches, eager
from vivace.runtimes.calls import flat_call, leaf_names, specs_of

_REASON_CHARACTERS = 600
_OF_PYTORCH = (
    "Caused by:",
    "For more ",
    "For extended logs",
    "For C++ stack trace",
    "If you suspect",
    "consider using",
)
"""Lines of PyTorch's reasons that are for its own developers."""
_CALLED = "The following call raised this error:"
"""Before its own quotation of the line, which not every reason has."""


@dataclasses.dataclass(frozen=True)
class Capture:
    """A captured model; `note` says what could not be kept general, and is empty when nothing is missing.

    `batch_axes` is the batch axis of each flat input as it was found by running a doubled batch, also where the
    program itself is fixed to one number of samples; None where there is none.
    """

    model: Model
    note: str
    batch_axes: tuple[int | None, ...]


class FlatModule(nn.Module):
    """The user's module behind flat tensors: puts a call together, and takes the answer apart."""

    def __init__(self, module: nn.Module, call: Structure, positional: int) -> None:
        super().__init__()
        self.module = module
        self._call_structure = call
        self._positional = positional
        self.answer: Structure | None = None

    def forward(self, *leaves: Tensor) -> tuple[Tensor, ...]:
        """Flat tensors in, flat tensors out."""
        named = self._call_structure.build(leaves)
        names = list(named)
        args = [named[name] for name in names[: self._positional]]
        answer = self.module(*args, **{name: named[name] for name in names[self._positional :]})
        outputs, structure = flatten(answer, lambda value: isinstance(value, Tensor))
        if self.answer is None:
            self.answer = structure
        return tuple(outputs)


def capture(
    module: nn.Module, inputs: Any, *, varying: Sequence[frozenset[int]] = (), fixed_shapes: bool = False
) -> Capture:
    """The module as a Model of form TORCH, checked against the module itself.

    `inputs` is one example call (tuple: positional, dict: keyword, else one argument). `varying` are, for each flat
    input, dimensions beside the batch that vary in the data. The module must be in eval mode. With `fixed_shapes` the
    program takes exactly the example's shapes.

    Raises UnsupportedModel when the module cannot be captured as a graph, changes its own buffers or inputs, or
    answers with anything but tensors and plain constants.
    """
    example, call, positional = flat_call(module, inputs)
    flat = FlatModule(module, call, positional)
    plain = _first_run(flat, example)
    found = batches.find(flat, example, plain)
    note = ""
    free = [frozenset[int]() for _ in example]
    if not fixed_shapes:
        wanted = _wanted(example, found, varying)
        program, free, note = _export_general(flat, example, wanted, found)
    if fixed_shapes or not any(free):
        program = _export(flat, example, None)
    program.example_inputs = (tuple(example), {})
    signature = _signature(flat, example, plain, program, call, positional, found, free)
    _verify(flat, program, example, plain, signature)
    axes = found.inputs if found is not None else (None,) * len(example)
    return Capture(Model(Form.TORCH, program, signature), note, tuple(axes))


def traced(module: nn.Module, inputs: Any) -> Model:
    """The graph that `capture` gives for exactly the example's shapes, from tensors that hold no data: nothing is
    computed, and nothing is compared with the module. It is for counting work: its answers are told as a flat tuple.
    The module must be in eval mode.

    Raises UnsupportedModel where torch.export does not follow the module, or it changes its own buffers or inputs.
    """
    example, call, positional = flat_call(module, inputs)
    flat = FlatModule(module, call, positional)
    program = _export(flat, example, None)
    returned = next(node for node in program.graph.nodes if node.op == "output").args[0]
    answers = [node.meta["val"] for node in returned]
    flat.answer = flatten(tuple(answers), lambda value: isinstance(value, Tensor))[1]
    free = [frozenset[int]() for _ in example]
    return Model(Form.TORCH, program, _signature(flat, example, answers, program, call, positional, None, free))


def _first_run(flat: FlatModule, example: list[Tensor]) -> list[Tensor]:
    try:
        with torch.no_grad():
            outputs = list(flat(*example))
    except UsageError as error:
        raise UnsupportedModel(
            f"the model's answer cannot be kept: {error}. Wrap the model so that it answers with "
            "these (for Hugging Face models, config.use_cache=False helps)"
        ) from error
    if not outputs:
        raise UnsupportedModel("the model's answer holds no tensor; return at least one")
    return outputs


def _wanted(
    example: list[Tensor], found: batches.Axes | None, varying: Sequence[frozenset[int]]
) -> list[frozenset[int]]:
    axes = found.inputs if found is not None else (None,) * len(example)
    extra = [*varying, *[frozenset[int]()] * (len(example) - len(varying))]
    batch = [frozenset({axis}) if axis is not None else frozenset[int]() for axis in axes]
    return [may | one for may, one in zip(extra, batch, strict=True)]


def _export_general(
    flat: FlatModule, example: list[Tensor], wanted: list[frozenset[int]], found: batches.Axes | None
) -> tuple[Any, list[frozenset[int]], str]:
    """Export with the wanted dimensions free; what could not be freed is told in the note."""
    nothing = [frozenset[int]() for _ in example]
    if not any(wanted):
        return (
            None,
            nothing,
            (
                "no batch axis was found (a doubled batch did not answer with doubled outputs), so the "
                "program takes exactly the example's shapes"
            ),
        )
    stretched = _stretched(example, wanted, found)
    try:
        program = _export(flat, stretched, [dict.fromkeys(may, Dim.AUTO) for may in wanted])
    except UnsupportedModel as error:
        return None, nothing, f"shapes are fixed to the example's: {error}"
    free = _free_dimensions(program)
    lost = [
        f"{name} dimension {i}"
        for name, want, got in zip(leaf_names(flat._call_structure), wanted, free, strict=True)
        for i in sorted(want - got)
    ]
    batch_lost = found is not None and any(
        axis is not None and axis not in got for axis, got in zip(found.inputs, free, strict=True)
    )
    if batch_lost:
        return None, nothing, f"shapes are fixed to the example's, because the graph depends on {', '.join(lost)}"
    return program, free, f"fixed to the example's size: {', '.join(lost)}" if lost else ""


def _stretched(example: Sequence[Tensor], free: Sequence[frozenset[int]], found: batches.Axes | None) -> list[Tensor]:
    """The example with a number of samples unlike any other dimension, as export mistakes equal sizes for one."""
    if found is None or not any(axis is not None and axis in may for axis, may in zip(found.inputs, free, strict=True)):
        return list(example)
    return batches.resized(example, found.inputs, batches.unlike_size(example))


def _export(flat: nn.Module, example: Sequence[Tensor], dynamic: list[dict[int, Any]] | None) -> ExportedProgram:
    shapes = None if dynamic is None else (tuple(dynamic),)
    example = tuple(leaf.clone() for leaf in example)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            if isinstance(flat, FlatModule):
                program = torch.export.export(flat, example, dynamic_shapes=shapes, strict=False)
            else:
                program = torch.export.export(flat, example, dynamic_shapes=shapes and shapes[0], strict=False)
    except Exception as error:  # torch.export raises whatever the user's code or its own tracer raises
        raise UnsupportedModel(
            f"torch.export could not capture the model: {_short(error)}. {_stopped_at(error)}Avoid control flow that "
            "depends on values, or give an .onnx file instead"
        ) from error
    _refuse_mutation(program)
    return program


def _stopped_at(error: BaseException) -> str:
    """The line of the model's code that PyTorch was in, as a sentence; empty where there is none."""
    own = tuple(f"{folder}{os.sep}" for folder in (Path(torch.__file__).parent, Path(__file__).parents[1]))
    frames = [
        one for one in traceback.extract_tb(error.__traceback__) if not one.filename.startswith((*own, "<string>"))
    ]
    if not frames:
        return ""
    last = frames[-1]
    code = f': "{last.line}"' if last.line else ""
    return f"It stopped at {last.filename}:{last.lineno}, in {last.name}{code}. "


def _short(error: BaseException) -> str:
    """What an error says, without PyTorch's own files and how to debug PyTorch."""
    said = (line.strip() for line in str(error).partition(_CALLED)[0].splitlines())
    lines = [line for line in said if line and not line.startswith(_OF_PYTORCH)]
    text = f"{type(error).__name__}: {' '.join(lines[:6])}".rstrip(".")
    return text if len(text) <= _REASON_CHARACTERS else text[:_REASON_CHARACTERS] + "..."


def _refuse_mutation(program: ExportedProgram) -> None:
    graph = program.graph_signature
    changed = [*graph.buffers_to_mutate.values(), *graph.user_inputs_to_mutate.values()]
    changed += [name for node in program.graph.nodes if (name := _outside_target(node))]
    if changed:
        raise UnsupportedModel(
            f"the model changes {', '.join(changed)} when it is called, so its answers depend on "
            "earlier calls; make its forward free of such changes (and put it in eval mode)"
        )


def _outside_target(node: torch.fx.Node) -> str:
    """The parameter, buffer or input that a node writes into in place; empty when there is none."""
    if not isinstance(node.target, torch._ops.OpOverload) or not node.target._schema.is_mutable:
        return ""
    target = node.args[0] if node.args else None
    while isinstance(target, torch.fx.Node) and target.op == "call_function" and _is_view(target):
        target = target.args[0]
    return target.name if isinstance(target, torch.fx.Node) and target.op == "placeholder" else ""


def _is_view(node: torch.fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target.is_view


def _free_dimensions(program: ExportedProgram) -> list[frozenset[int]]:
    users = set(program.graph_signature.user_inputs)
    nodes = [node for node in program.graph.nodes if node.op == "placeholder" and node.name in users]
    return [frozenset(i for i, n in enumerate(node.meta["val"].shape) if not isinstance(n, int)) for node in nodes]


def _signature(
    flat: FlatModule,
    example: list[Tensor],
    plain: list[Tensor],
    program: ExportedProgram,
    call: Structure,
    positional: int,
    found: batches.Axes | None,
    free: list[frozenset[int]],
) -> Signature:
    assert flat.answer is not None
    input_axes = found.inputs if found is not None else (None,) * len(example)
    output_axes = found.outputs if found is not None else (None,) * len(plain)
    returned = next(node for node in program.graph.nodes if node.op == "output").args[0]
    open_outputs = [frozenset(i for i, n in enumerate(_shape_of(node)) if not isinstance(n, int)) for node in returned]
    inputs = specs_of(leaf_names(call), example, input_axes, free)
    outputs = specs_of(leaf_names(flat.answer), plain, output_axes, open_outputs)
    return Signature(call, positional, inputs, flat.answer, outputs)


def _shape_of(node: Any) -> Sequence[Any]:
    shape: Sequence[Any] = node.meta["val"].shape
    return shape


def _verify(
    flat: FlatModule, program: ExportedProgram, example: list[Tensor], plain: list[Tensor], signature: Signature
) -> None:
    """Run the program beside the module, on the example and on other numbers of samples."""
    axes = [spec.batch_axis for spec in signature.inputs]
    calls = [example] + [batches.resized(example, axes, n) for n in (1, 4) if signature.has_batch]
    for leaves in calls:
        with torch.no_grad():
            expected = plain if leaves is example else list(flat(*leaves))
            try:
                received = eager.run_flat(program, leaves)
            except (RuntimeError, ValueError, IndexError, TypeError) as error:
                raise UnsupportedModel(
                    f"the captured graph failed on shapes {[list(t.shape) for t in leaves]}, where "
                    f"the model works: {_short(error)}; use fixed shapes"
                ) from error
        for spec, want, got in zip(signature.outputs, expected, received, strict=True):
            if want.dtype != got.dtype or not batches.close(want, got):
                raise UnsupportedModel(
                    f"the captured graph does not repeat the model's {spec.name} on shapes "
                    f"{[list(t.shape) for t in leaves]}; the model may be random (use eval mode) or depend on values "
                    "in a way that a graph cannot hold"
                )
