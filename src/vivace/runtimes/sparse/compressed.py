"""The operator of a linear layer whose weight is stored as its non-zeros: registered, checked and counted here."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from vivace.core.errors import ArtifactError
from vivace.runtimes.sparse.defining import defined

SCHEMA = (
    "sparse_linear(Tensor x, Tensor pointers, Tensor indices, Tensor values, Tensor? bias, int outputs, int inputs, "
    "bool by_columns) -> Tensor"
)
"""y = x W' + b. `pointers`, `indices` (int32) and `values` are W [outputs, inputs] in compressed rows: CSR where values
are [nonzeros], BSR where they are [blocks, height, width]. `by_columns` multiplies W x' and turns the result, which is
faster for many rows; else x W' is asked for as it is."""


@functools.cache
def operator() -> Any:
    """The operator, for graphs; it is made known to this process."""
    found = defined(SCHEMA, _multiply, _shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch says once in a process that sparse tensors are in beta
        torch.zeros(1, 1).to_sparse_csr()
    return found


def weight_bytes(*parts: Tensor) -> int:
    """Exactly how many bytes the stored weight takes.

    >>> weight_bytes(torch.zeros(3, dtype=torch.int32), torch.zeros(1, dtype=torch.int32), torch.ones(1))
    20
    """
    return sum(part.numel() * part.element_size() for part in parts)


def check(program: ExportedProgram) -> None:
    """Raise ArtifactError when a sparse weight of a program that was read would make a kernel read elsewhere.

    The kernels trust indices. So they must be weights of the program itself, used for nothing else (nothing may write
    into them), sorted and within the layer's size; they are copied, so that no other weight shares their memory.
    """
    targets = {spec.arg.name: spec.target for spec in program.graph_signature.input_specs if hasattr(spec.arg, "name")}
    once = {target for target in targets.values() if list(targets.values()).count(target) == 1}
    for module in program.graph_module.modules():
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            if _is_sparse(node):
                names = [targets.get(part.name) for part in _parts(node)] if module is program.graph_module else []
                if len(names) != 3 or not all(name in once and name in program.state_dict for name in names):
                    raise ArtifactError(f"{node.name} takes a sparse weight that the program does not own")
                for name in names:
                    program.state_dict[name] = program.state_dict[name].clone()
                _check_call(node, [program.state_dict[name] for name in names])


def _is_sparse(node: Any) -> bool:
    return "vivace.sparse_linear" in str(node.target)


def _parts(node: Any) -> list[Any]:
    """The nodes of a call's sparse weight, where each is an input of the graph that only such calls use."""
    parts = node.args[1:4] if len(node.args) == 8 and not node.kwargs else ()
    return [part for part in parts if getattr(part, "op", "") == "placeholder" and all(map(_is_sparse, part.users))]


def _check_call(node: Any, parts: list[Any]) -> None:
    sizes = node.args[5:7]
    pointers, indices, values = parts
    integers = pointers.dtype is indices.dtype is torch.int32
    try:
        if not integers or values.dim() not in (1, 3) or not all(type(size) is int for size in sizes):
            raise ValueError("its indices are not int32, its values have another rank than 1 or 3, or its size varies")
        make = torch.sparse_csr_tensor if values.dim() == 1 else torch.sparse_bsr_tensor
        make(pointers, indices, values, tuple(sizes), check_invariants=True)
    except (RuntimeError, ValueError) as error:
        raise ArtifactError(f"the sparse weight of {node.name} is damaged: {str(error)[:200]}") from error


def _multiply(
    x: Tensor,
    pointers: Tensor,
    indices: Tensor,
    values: Tensor,
    bias: Tensor | None,
    outputs: int,
    inputs: int,
    by_columns: bool,
) -> Tensor:
    if x.shape[-1] != inputs:
        raise RuntimeError(f"sparse_linear received rows of {x.shape[-1]}; allowed are {inputs}")
    make = torch.ops.aten._sparse_csr_tensor_unsafe if values.dim() == 1 else torch.ops.aten._sparse_bsr_tensor_unsafe
    weight = make(pointers, indices, values, (outputs, inputs))
    rows = x.reshape(-1, inputs)
    y = torch.mm(weight, rows.t()).t() if by_columns else torch.nn.functional.linear(rows, weight)
    if bias is not None:
        y = y + bias
    return y.contiguous().reshape(*x.shape[:-1], outputs)


def _shape(
    x: Tensor, pointers: Any, indices: Any, values: Any, bias: Any, outputs: int, inputs: int, by_columns: bool
) -> Tensor:
    return x.new_empty((*x.shape[:-1], outputs))
