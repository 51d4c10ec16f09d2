"""Linear layers that are mostly zeros as sparse products, where one was measured to be faster than the dense one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx import Node

from vivace.core.cost import Cost
from vivace.core.errors import NotApplicable
from vivace.core.facts import Fact
from vivace.core.layer import StoredWeight, stored_after
from vivace.core.program import Model
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.work import Work
from vivace.measure import kernels
from vivace.runtimes import eager
from vivace.runtimes.settings.around import threads
from vivace.runtimes.sparse import compressed, semi_structured
from vivace.techniques.graph import GraphEdit, torch_program
from vivace.techniques.sparsity.stored import bytes_of, stored_weight

LEAST_ZEROS = 0.5
LEAST_SPEEDUP = 1.05
"""What the lower bound of a measured speed-up must exceed before a layer changes its kernel."""
BLOCK = 16
MOST_BLOCKS = 0.5


@dataclasses.dataclass(frozen=True)
class SparseKernels(Technique):
    """Linear layers with at least half zeros, stored as their non-zeros and multiplied by sparse kernels.

    For each layer MKL's CSR, its BSR with 16 x 16 blocks where most blocks are empty, each in two layouts of the
    product, and a kernel of our own where no four inputs have more than two non-zeros (2:4, semi-structured), are timed
    against the dense product in the building process, interleaved, on the example's own activations, with one thread
    and with as many as the process has. A kernel is taken only if the lower bound of its speed-up exceeds 1.05
    each time, and once more; a layer without one stays dense. The choice holds for about as many rows as the
    example has. Stored are the values with 32-bit column indices and row pointers, or with two bits each (2:4);
    the program and its result tell the exact bytes.
    Layers with fewer than `smallest` inputs or outputs are left alone. Raises NotApplicable when no layer gets a
    sparse kernel, with the best that was measured.

    Source: https://docs.pytorch.org/docs/stable/sparse.html; Gale et al., The State of Sparsity in Deep Neural
    Networks, 2019 (arXiv:1902.09574); Buluc et al., SPAA 2009, doi:10.1145/1583991.1584053, section 2, on CSR.

    >>> SparseKernels.name()
    'sparse-kernels'
    """

    smallest: int = 64

    stage = Stage.SPARSITY
    family = Family.ALGORITHM
    effect = Effect.ROUNDED
    needs = frozenset({Fact.TORCH_GRAPH, Fact.SPARSE_LINEAR, Fact.FLOAT32, Fact.UNCOMPILED, Fact.ON_CPU})
    breaks = frozenset({Fact.ONNX_READY, Fact.OPENVINO_READY, Fact.PRUNED})
    build_seconds = 5.0
    source = "https://docs.pytorch.org/docs/stable/sparse.html; Gale et al. 2019, arXiv:1902.09574"

    def rewrite(self, cost: Cost) -> Cost:
        """A guess for layers that are four fifths zeros: half the time of their products, and fewer bytes."""
        return cost.replace(flops=cost.flops * 0.5, weight_bytes=cost.weight_bytes * 0.5)

    def apply(self, model: Model, work: Work) -> Model:
        """The model with sparse products where they are faster."""
        program = torch_program(model)
        edit = GraphEdit(program)
        rows = _activations(program)
        layers = [
            layer for node in edit.calls(torch.ops.aten.linear.default) for layer in self._layer(edit, node, rows)
        ]
        if not layers:
            raise NotApplicable(f"no linear layer of at least {self.smallest} x {self.smallest} is half zeros")
        choices = [_fastest(layer) for layer in layers]
        taken = [choice for choice in choices if choice.speedup > LEAST_SPEEDUP]
        if not taken:
            best = max(choices, key=lambda choice: choice.speedup)
            raise NotApplicable(
                f"no sparse kernel was faster: the best of {len(layers)} layers, {best.layer.node.name}, was surely "
                f"only {best.speedup:.2f} times as fast as dense"
            )
        stored = list(_stored(taken))
        for choice in taken:
            choice.replace(edit)
        return model.replace(
            program=edit.close(),
            lineage=(*model.lineage, self._told(taken, len(layers))),
            stored_weights=stored_after(model.stored_weights, stored),
        )

    def _layer(self, edit: GraphEdit, node: Node, rows: dict[str, Tensor]) -> Iterator[_Layer]:
        weight = edit.weight(node.args[1])
        if weight is None or node.name not in rows or weight.dtype is not torch.float32:
            return
        zeros = 1 - weight.count_nonzero().item() / weight.numel()
        if min(weight.shape) >= self.smallest and zeros >= LEAST_ZEROS:
            bias = edit.weight(node.args[2]) if len(node.args) > 2 else None
            yield _Layer(node, weight.contiguous(), bias, rows[node.name])

    def _told(self, taken: list[_Choice], layers: int) -> str:
        stored = sum(choice.stored_bytes for choice in taken)
        dense = sum(choice.layer.weight.numel() * 4 for choice in taken)
        return f"{self}: {len(taken)} of {layers} layers, {stored} bytes of weights for {dense}"


@dataclasses.dataclass(frozen=True)
class _Layer:
    """One candidate, with an input of the example's shape."""

    node: Node
    weight: Tensor
    bias: Tensor | None
    x: Tensor


@dataclasses.dataclass(frozen=True)
class _Form:
    """A weight as it is stored: what that is called, the operator that multiplies by its parts, these by name, and what
    else the operator is told."""

    name: str
    operator: Any
    parts: Mapping[str, Tensor]
    options: tuple[bool, ...] = ()


@dataclasses.dataclass(frozen=True)
class _Choice:
    """A sparse kernel for a layer; `speedup` is the least lower bound that was measured, 0 before."""

    layer: _Layer
    form: _Form
    speedup: float = 0.0

    @property
    def stored_bytes(self) -> int:
        return compressed.weight_bytes(*self.form.parts.values())

    def kernel(self) -> Callable[[], Any]:
        """A call of the sparse product."""
        layer, form = self.layer, self.form
        return lambda: form.operator(layer.x, *form.parts.values(), layer.bias, *layer.weight.shape, *form.options)

    def replace(self, edit: GraphEdit) -> None:
        """Put the sparse product in the layer's place."""
        node, form = self.layer.node, self.form
        stored = [edit.add_weight(f"{node.name}_{name}", part) for name, part in form.parts.items()]
        bias = node.args[2] if len(node.args) > 2 else None
        node.args = (node.args[0], *stored, bias, *self.layer.weight.shape, *form.options)
        node.target = form.operator


def _stored(taken: Sequence[_Choice]) -> Iterator[StoredWeight]:
    """What is stored for each layer; a weight that several share was one dense one, and is one for each of them now."""
    seen: set[Any] = set()
    for choice in taken:
        node, weight = choice.layer.node, choice.layer.weight
        dense = 0 if node.args[1] in seen else bytes_of(weight)
        seen.add(node.args[1])
        yield stored_weight(node, choice.form.name, dense, choice.stored_bytes)


def _fastest(layer: _Layer) -> _Choice:
    """The sparse kernel with the best lower bound; measured a second time, since the best of several looks too good."""
    timed = [
        dataclasses.replace(choice, speedup=_sure_speedup(choice))
        for choice in (_Choice(layer, form) for form in _forms(layer.weight))
    ]
    best = max(timed, key=lambda choice: choice.speedup)
    if best.speedup <= LEAST_SPEEDUP:
        return best
    return dataclasses.replace(best, speedup=min(best.speedup, _sure_speedup(best)))


def _forms(weight: Tensor) -> Iterator[_Form]:
    """All ways to store a weight that it allows."""
    product = compressed.operator()  # before any sparse tensor is made: PyTorch tells once that they are in beta
    halves = semi_structured.packed(weight)
    if halves is not None:
        yield _Form("2:4", semi_structured.operator(), dict(zip(("values", "places"), halves, strict=True)))
    blocks = ((f"BSR {BLOCK} x {BLOCK}", parts) for parts in _blocks(weight))
    for name, parts in (("CSR", _parts(weight.to_sparse_csr())), *blocks):
        for by_columns in (False, True):
            yield _Form(name, product, parts, (by_columns,))


def _sure_speedup(choice: _Choice) -> float:
    """The lower bound of the speed-up over the dense product, the worst of one thread and all; 0 if it cannot run."""
    layer, sparse = choice.layer, choice.kernel()
    linear = torch.ops.aten.linear.default

    def dense() -> Tensor:
        result: Tensor = linear(layer.x, layer.weight, layer.bias)
        return result

    bounds = []
    with torch.no_grad():
        try:
            sparse()
        except RuntimeError:  # this PyTorch has no such kernel, as without MKL
            return 0.0
        for count in sorted({1, torch.get_num_threads()}):
            with threads(count):
                bounds.append(kernels.speedup(dense, sparse).low)
            if bounds[-1] <= LEAST_SPEEDUP:
                break
    return min(bounds)


def _blocks(weight: Tensor) -> Iterator[dict[str, Tensor]]:
    """The weight in blocks, if it can be and most are empty."""
    if any(size % BLOCK for size in weight.shape):
        return
    blocked = weight.to_sparse_bsr((BLOCK, BLOCK))
    if blocked.values().numel() <= MOST_BLOCKS * weight.numel():
        yield _parts(blocked)


def _parts(sparse: Tensor) -> dict[str, Tensor]:
    pointers, indices = sparse.crow_indices().to(torch.int32), sparse.col_indices().to(torch.int32)
    return {"pointers": pointers, "indices": indices, "values": sparse.values().contiguous()}


def _activations(program: torch.export.ExportedProgram) -> dict[str, Tensor]:
    """What each linear layer is given in the example call, by the name of its node."""
    if program.example_inputs is None:
        raise NotApplicable("the program carries no example call to time kernels on")
    recorder = _Recorder(program.graph_module)
    with torch.no_grad():
        recorder.run(*eager.lifted_values(program), *program.example_inputs[0])
    return recorder.seen


class _Recorder(fx.Interpreter):
    """Runs a graph and keeps the inputs of its linear layers."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.seen: dict[str, Tensor] = {}

    def run_node(self, n: Node) -> Any:
        """Run one node, keeping a linear layer's input."""
        if n.target is torch.ops.aten.linear.default:
            self.seen[n.name] = self.fetch_args_kwargs_from_env(n)[0][0].clone()
        return super().run_node(n)
