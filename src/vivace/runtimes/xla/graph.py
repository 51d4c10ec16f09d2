"""To form XLA: the exported graph, operator by operator in JAX, and from there StableHLO for CPUs and TPUs."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram

from vivace.core.errors import NotApplicable
from vivace.runtimes import eager

_NOTHING = ("_assert_tensor_metadata", "_assert_scalar", "sym_constrain_range_for_size", "sym_constrain_range")
JaxFunction = Callable[[Sequence[Any], Sequence[Any]], tuple[Any, ...]]


@functools.cache
def operators() -> dict[str, Any]:
    """Every ATen operator that can be written in JAX here, by its name without the overload. Imports JAX."""
    from vivace.runtimes.xla import elementwise, products, shaping

    return elementwise.table() | shaping.table() | products.table()


def translatable(program: ExportedProgram) -> ExportedProgram:
    """The program, or a copy of it whose unknown operators are decomposed into known ones.

    Raises NotApplicable that names each operator for which that is not possible, with the layer where it stands.
    """
    if not any(_unknown(program.graph_module)):
        return program
    table: Any = torch.export.default_decompositions()
    kept: list[Any] = [one for one in table if one._opname in operators() and not one._schema.is_mutable]
    for operator in kept:
        table.pop(operator)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = program.run_decompositions(table)
    except Exception as error:  # tracing may raise anything
        raise NotApplicable(f"the graph cannot be decomposed: {type(error).__name__}: {str(error)[:300]}") from error
    missing = sorted({_described(node) for node in _unknown(program.graph_module)})
    if missing:
        raise NotApplicable(
            f"XLA's translation here lacks {'; '.join(missing[:4])}: replace these operators in the model, or leave "
            "this plan out (--without xla)"
        )
    return program


def jax_function(program: ExportedProgram) -> JaxFunction:
    """A function of (weights, flat inputs) to flat outputs in JAX; weights in the order of `eager.lifted_values`."""
    module = program.graph_module

    def run(weights: Sequence[Any], leaves: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(_interpret(module, [*weights, *leaves]))

    return run


def _interpret(module: fx.GraphModule, arguments: Sequence[Any]) -> Sequence[Any]:
    values: dict[fx.Node, Any] = {}
    given = iter(arguments)
    for node in module.graph.nodes:
        if node.op == "placeholder":
            values[node] = next(given)
        elif node.op == "get_attr":
            values[node] = getattr(module, str(node.target))
        elif node.op == "output":
            found = fx.node.map_arg(node.args[0], lambda one: values[one])
            return found if isinstance(found, tuple | list) else (found,)
        else:
            args = fx.node.map_arg(node.args, lambda one: values[one])
            kwargs = fx.node.map_arg(node.kwargs, lambda one: values[one])
            values[node] = _as_traced(_called(node, args, kwargs), node.meta.get("val"))
    raise AssertionError("a graph ends with its output")


def _called(node: fx.Node, args: Any, kwargs: Any) -> Any:
    from vivace.runtimes.xla.shaping import PYTHON

    if _name(node) in _NOTHING:
        return None
    if _is_wrapped(node):
        return tuple(_interpret(args[1], args[2:]))
    function: Any = PYTHON[node.target] if node.target in PYTHON else operators()[_name(node)]
    try:
        return function(*args, **kwargs)
    except NotApplicable:
        raise
    except Exception as error:  # JAX has many kinds of errors, and what it says is the reason
        told = " ".join(str(error).split())[:300]
        raise NotApplicable(f"XLA cannot compute {_described(node)}: {type(error).__name__}: {told}") from error


def _as_traced(value: Any, traced: Any) -> Any:
    """The value in the dtype that PyTorch found: the two libraries promote integers and scalars differently."""
    from vivace.runtimes.xla.elementwise import jax_dtype

    if isinstance(traced, torch.Tensor) and hasattr(value, "astype"):
        return value.astype(jax_dtype(traced.dtype))
    if isinstance(traced, tuple | list) and isinstance(value, tuple | list):
        return [_as_traced(one, like) for one, like in zip(value, traced, strict=False)]
    return value


def _unknown(module: fx.GraphModule) -> Iterator[fx.Node]:
    from vivace.runtimes.xla.shaping import PYTHON

    known = operators()
    for node in module.graph.nodes:
        if node.op != "call_function" or node.target in PYTHON or _name(node) in _NOTHING:
            continue
        if _is_wrapped(node):
            yield from _unknown(getattr(module, node.args[1].target))
        elif _name(node) not in known or node.target._schema.is_mutable:
            yield node


def _is_wrapped(node: fx.Node) -> bool:
    return str(node.target) == "wrap_with_set_grad_enabled"


def _name(node: fx.Node) -> str:
    is_aten = isinstance(node.target, torch._ops.OpOverload) and node.target.namespace == "aten"
    return node.target._opname if is_aten else ""  # type: ignore[union-attr]


def _described(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values() if path]
    return f"{node.target} in {paths[-1].removeprefix('module.')}" if paths else str(node.target)


def weights_of(program: ExportedProgram) -> list[torch.Tensor]:
    """Parameters, buffers and constants, as the graph takes them. Raises NotApplicable for what is no tensor."""
    values = eager.lifted_values(program)
    if not all(isinstance(value, torch.Tensor) and value.layout is torch.strided for value in values):
        raise NotApplicable("the program holds constants that are no plain tensors (packed or sparse weights)")
    return [value.detach() for value in values]
