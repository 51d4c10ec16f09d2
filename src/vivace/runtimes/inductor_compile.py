"""Inductor called on a graph with stand-in inputs; importing this brings the whole of Dynamo in, so it is done late."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.source import ConstantSource
from torch._inductor import standalone_compile
from torch._subclasses import FakeTensorMode
from torch.export import ExportedProgram
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from vivace.core.errors import NotApplicable
from vivace.core.program import Model
from vivace.runtimes import batches, eager

Compiled = Callable[..., Sequence[Tensor]]


def fixed(example: Sequence[Tensor]) -> list[Tensor]:
    """Stand-ins for exactly these shapes."""
    mode = FakeTensorMode(shape_env=ShapeEnv(), static_shapes=True)
    return [mode.from_tensor(leaf.detach(), static_shapes=True) for leaf in example]


def free(model: Model, example: Sequence[Tensor]) -> list[Tensor]:
    """Stand-ins whose free dimensions are symbols; equal sizes are one symbol, so samples get a size of their own."""
    mode = FakeTensorMode(shape_env=ShapeEnv())
    axes = [spec.batch_axis for spec in model.signature.inputs]
    stretched = batches.resized(example, axes, batches.unlike_size(example))
    return [
        mode.from_tensor(
            leaf.detach(),
            symbolic_context=StatelessSymbolicContext(
                dynamic_sizes=[DimDynamic.STATIC if n is not None else DimDynamic.DUCK for n in spec.shape]
            ),
            source=ConstantSource(f"leaves_{i}"),
        )
        for i, (leaf, spec) in enumerate(zip(stretched, model.signature.inputs, strict=True))
    ]


def compile_graph(program: ExportedProgram, inputs: Sequence[Tensor], options: dict[str, Any]) -> Compiled:
    module = eager.as_module(program)
    for name, parameter in list(module.named_parameters()):
        setattr(module, name, torch.nn.Parameter(parameter.detach(), requires_grad=False))
    for node in module.graph.output_node().all_input_nodes:
        node.meta["example_value"] = inputs[0]  # standalone_compile takes the mode of its stand-ins from here
    try:
        compiled: Compiled = standalone_compile(
            module, list(inputs), dynamic_shapes="from_graph", options={"config_patches": options}
        )
    except Exception as error:  # the compiler may raise anything
        raise NotApplicable(f"Inductor failed: {type(error).__name__}: {str(error)[:400]}") from error
    return compiled
