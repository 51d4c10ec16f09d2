"""What a program is made of: its operators, the facts that techniques rely on, and the work of one call."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from vivace.core.cost import Cost
from vivace.core.errors import UnsupportedModel
from vivace.core.facts import Fact
from vivace.core.program import Form, Model
from vivace.runtimes import eager
from vivace.runtimes.graphs import flops, onnx_counts
from vivace.runtimes.graphs.softmaxes import SOFTMAXES, spelled_softmax
from vivace.runtimes.lanes import branches

_CONV2D = frozenset({"conv2d", "convolution", "_convolution"})
_LINEAR = frozenset({"linear", "addmm"})
BATCH_NORM = frozenset(
    {"batch_norm", "native_batch_norm", "_native_batch_norm_legit_no_training", "_batch_norm_no_update"}
)
_ATTENTION = frozenset({"scaled_dot_product_attention", "_native_multi_head_attention"})
_PRODUCTS = frozenset({"matmul", "bmm", "mm", "einsum"})
_RECURRENT = frozenset({"lstm", "gru", "rnn_tanh", "rnn_relu"})
_COPIES = frozenset({"to", "_to_copy", "clone", "contiguous"})
_INTEGER = frozenset({"int8", "uint8"})
_TABLES = frozenset({"embedding", "embedding_bag", "_embedding_bag"})
"""Of whose first tensor as many rows are read as the second has numbers."""
_LOOKED_UP = _TABLES | {"index_select", "gather", "take"}
"""And of whose first tensor as much is read as the answer has."""
VIEWS = frozenset(
    {
        "view",
        "reshape",
        "permute",
        "transpose",
        "t",
        "expand",
        "unsqueeze",
        "squeeze",
        "slice",
        "select",
        "alias",
        "detach",
        "flatten",
        "unflatten",
        "_unsafe_view",
        "mT",
        "split",
        "chunk",
        "unbind",
        "dropout",
    }
)


def facts_of(model: Model) -> frozenset[Fact]:
    """What is true of a program as it was captured or opened."""
    if model.form is Form.ONNX:
        return onnx_counts.facts_of(model)
    on_cpu = model.settings.device == "cpu"
    found = {Fact.RUNNABLE, Fact.ON_CPU if on_cpu else Fact.ON_CUDA}
    if model.form is Form.TORCH:
        found |= {Fact.TORCH_GRAPH, Fact.UNCOMPILED} | _graph_facts(model)
        found |= {Fact.ONNX_READY, Fact.OPENVINO_READY} if on_cpu else set()
    return frozenset(found)


def operators_of(model: Model) -> tuple[str, ...]:
    """The names of the graph's operators, each once, sorted: `aten.linear` and the like, or ONNX's own."""
    if model.form is Form.ONNX:
        return onnx_counts.operators_of(model)
    if model.form not in (Form.TORCH, Form.INDUCTOR, Form.NATIVE):
        return ()
    return tuple(sorted({f"{node.target.namespace}.{node.target._opname}" for node in _operators(model)}))


def cost_of(model: Model, leaves: Sequence[Tensor]) -> Cost:
    """The work of one call with these flat inputs.

    flops are those of products, a multiply-add being 2, counted while the graph runs once (`graphs.flops`); recurrent
    cells are 2 flops a weight and step, however they are computed here. Bytes are those of parameters and of what
    every operator but a view writes. For ONNX an estimate from its shapes.
    """
    return onnx_counts.cost_of(model, leaves) if model.form is Form.ONNX else tally_of(model, leaves).cost


@dataclasses.dataclass(frozen=True)
class Tally:
    """What one run of a graph tells: its `cost_of`, its `work_of`, and the most that it holds at once: each storage
    once and without weights, where what is not read again is given up at once. `unread_bytes` are of weights that rows
    are looked up in and that nothing else reads: what no row of was looked up."""

    cost: Cost
    nodes: Mapping[str, NodeWork]
    peak_bytes: int
    unread_bytes: int = 0


def tally_of(model: Model, leaves: Sequence[Tensor]) -> Tally:
    """All that is counted of an exported graph for these flat inputs; the graph runs once. Raises what that raises."""
    count = _counted(model, leaves)
    return Tally(_cost(model, leaves, count), count.nodes, count.peak_bytes, count.unread_bytes)


def tally_without_data(model: Model, leaves: Sequence[Tensor]) -> Tally:
    """The same counts from a run on PyTorch's fake tensors, which have shapes and strides and nothing in them:
    nothing is computed. Raises UnsupportedModel for a graph whose shapes depend on values, or an operator of which
    PyTorch knows no such form."""
    count = _counted_on_fakes(model, leaves)
    return Tally(_cost(model, leaves, count), count.nodes, count.peak_bytes, count.unread_bytes)


def _cost(model: Model, leaves: Sequence[Tensor], count: _Counter) -> Cost:
    values = {**model.program.state_dict, **model.program.constants}
    weight_bytes = sum(v.numel() * v.element_size() for v in values.values() if isinstance(v, Tensor))
    counted = count.flops.total()
    return Cost(
        flops=float(counted),
        weight_bytes=float(weight_bytes),
        activation_bytes=float(count.written_bytes + sum(leaf.numel() * leaf.element_size() for leaf in leaves)),
        operators=sum(1 for node in _operators(model) if node.target._opname not in VIEWS),
        precision=_precision(model),
        threads=torch.get_num_threads(),
        convolution_share=sum(n for name, n in count.flops.items() if "conv" in name) / max(counted, 1),
        recurrent_share=sum(count.flops[name] for name in _RECURRENT) / max(counted, 1),
        device=model.settings.device.partition(":")[0],
    )


@dataclasses.dataclass(frozen=True)
class NodeWork:
    """The work of one node of a graph: flops of products, and bytes read and written; what writes no tensor of its own,
    such as a view, moves none."""

    flops: int
    moved_bytes: int


def work_of(model: Model, leaves: Sequence[Tensor]) -> Mapping[str, NodeWork]:
    """The work of each node of an exported graph by the node's name, for these flat inputs; the graph runs once.

    The flops of all nodes are those of `cost_of`. Bytes are of every tensor that a node takes, its weights too, and
    gives, in the precision that they have; of a table that rows are looked up in those of the rows. Raises what running
    the graph raises.
    """
    return _counted(model, leaves).nodes


def _counted(model: Model, leaves: Sequence[Tensor]) -> _Counter:
    return _run(model, list(eager.lifted_values(model.program)), leaves)


def _counted_on_fakes(model: Model, leaves: Sequence[Tensor]) -> _Counter:
    with FakeTensorMode(allow_non_fake_inputs=True) as fakes:
        given = pytree.tree_map_only(
            Tensor, fakes.from_tensor, (list(eager.lifted_values(model.program)), list(leaves))
        )
        try:
            return _run(model, *given)
        except (RuntimeError, NotImplementedError, TypeError, ValueError, AttributeError) as failure:
            raise UnsupportedModel(f"the graph does not run on tensors without data: {failure}") from failure


def _run(model: Model, lifted: Sequence[Any], leaves: Sequence[Tensor]) -> _Counter:
    weights = {one.untyped_storage()._cdata for one in lifted if isinstance(one, Tensor)}
    with torch.no_grad(), flops.counter() as products:
        count = _Counter(model.program.graph_module, products, weights)
        count.run(*lifted, *leaves)
    return count


class _Counter(fx.Interpreter):
    """Runs a graph under a counter of `products`, and keeps what each operator computes, what all of them write and the
    most that is held at once, without the storages of `weights`."""

    def __init__(self, module: fx.GraphModule, products: FlopCounterMode, weights: Set[int]) -> None:
        super().__init__(module)
        self.peak_bytes = 0
        self._weights = weights
        self._held: Counter[int] = Counter()
        self._held_bytes = 0
        self.nodes: dict[str, NodeWork] = {}
        self.flops: Counter[str] = Counter()
        self.written_bytes = 0
        self._products = products
        self._read_of_tables: Counter[fx.Node] = Counter()
        self._tables: dict[fx.Node, int] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run one node, counting."""
        before = self._products.get_total_flops()
        result = super().run_node(n)
        if n.op in ("call_function", "call_module"):
            self._count(n, result, self._products.get_total_flops() - before)
        self._hold(result, 1)
        self.peak_bytes = max(self.peak_bytes, self._held_bytes)
        for one in self.user_to_last_uses.get(n, []):
            self._hold(result if one is n else self.env[one], -1)
        return result

    def _hold(self, value: Any, by: int) -> None:
        for tensor in pytree.tree_leaves(value):
            if not isinstance(tensor, Tensor) or tensor.untyped_storage()._cdata in self._weights:
                continue
            storage = tensor.untyped_storage()
            before = self._held[storage._cdata]
            self._held[storage._cdata] += by
            if bool(before) != bool(before + by):
                self._held_bytes += by * storage.nbytes()

    def _count(self, node: fx.Node, result: Any, counted: int) -> None:
        name = getattr(node.target, "_opname", "")
        is_view = not name or name in VIEWS
        args, kwargs = self.fetch_args_kwargs_from_env(node)
        if name in _RECURRENT:
            counted = flops.recurrent_flops(args[0], args[2])
        self.flops[name] += counted
        written = 0 if is_view else _bytes_of(result)
        self.written_bytes += written
        unread = unread_bytes(name, args, result)
        taken = _bytes_of([*args, *kwargs.values()]) - unread
        self.nodes[node.name] = NodeWork(counted, written + taken if written else 0)
        if name in _LOOKED_UP and args[0].untyped_storage()._cdata in self._weights:
            table: Any = node.args[0]
            self._tables[table] = whole = _bytes_of(args[0])
            self._read_of_tables[table] += whole - unread

    @property
    def unread_bytes(self) -> int:
        """Bytes of weights, which only lookups read, that none of them has read."""
        return sum(
            max(0, whole - self._read_of_tables[table])
            for table, whole in self._tables.items()
            if all(getattr(user.target, "_opname", "") in _LOOKED_UP for user in table.users)
        )


def unread_bytes(name: str, args: Sequence[Any], result: Any) -> int:
    """Bytes of the table that an operator of this name looks rows up in which it leaves unread; 0 for any other.

    >>> unread_bytes("embedding", [torch.zeros(100, 8), torch.tensor([3, 5])], torch.zeros(2, 8))
    3136
    """
    if name not in _LOOKED_UP:
        return 0
    read = _bytes_of(result)
    if name in _TABLES:
        read = args[1].numel() * args[0].shape[-1] * args[0].element_size()
    return max(0, _bytes_of(args[0]) - read)


def _bytes_of(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    return sum(_bytes_of(item) for item in value) if isinstance(value, tuple | list) else 0


def _graph_facts(model: Model) -> set[Fact]:
    found: set[Fact] = set()
    nodes = _operators(model)
    for node in nodes:
        name = node.target._opname
        if name in _CONV2D and _rank(node) == 4:
            found.add(Fact.HAS_CONV2D)
        if name in _LINEAR:
            found.add(Fact.HAS_LINEAR)
            found |= _zeros(model, node)
        if name in _ATTENTION:
            found.add(Fact.HAS_ATTENTION)
        if name in BATCH_NORM:
            found |= _folded(node)
        if name in _PRODUCTS and any(_comes_from_softmax(source) for source in node.all_input_nodes):
            found |= {Fact.HAS_ATTENTION, Fact.HAS_WRITTEN_ATTENTION}
    if branches.told(model.program, _weights(model), 2):
        found.add(Fact.HAS_BRANCHES)
    values = [v for v in model.program.state_dict.values() if isinstance(v, Tensor)]
    if not any(str(v.dtype).removeprefix("torch.") in _INTEGER and v.dim() > 1 for v in values):
        found.add(Fact.UNQUANTIZED)
    if all(v.dtype == torch.float32 for v in values if v.dtype.is_floating_point):
        found.add(Fact.FLOAT32)
    return found


def _weights(model: Model) -> dict[str, int]:
    """How many weights each operator takes: what is known of its work before there is a call."""
    named = model.program.graph_signature.inputs_to_parameters
    sizes = {name: model.program.state_dict[full].numel() for name, full in named.items()}
    return {node.name: sum(sizes.get(one.name, 0) for one in node.all_input_nodes) for node in _operators(model)}


def _zeros(model: Model, node: fx.Node) -> set[Fact]:
    """Whether at least half of a linear layer's own weights are zeros."""
    named = model.program.graph_signature.inputs_to_parameters | model.program.graph_signature.inputs_to_buffers
    weight = model.program.state_dict.get(named.get(getattr(node.args[1], "name", ""), ""))
    if not isinstance(weight, Tensor) or weight.numel() == 0:
        return set()
    return {Fact.SPARSE_LINEAR} if weight.count_nonzero().item() <= weight.numel() / 2 else set()


def _comes_from_softmax(node: fx.Node) -> bool:
    """Whether a value is a softmax, or a view, copy or dropout of one: the weights of attention."""
    while getattr(node.target, "_opname", "") in VIEWS | _COPIES and node.all_input_nodes:
        node = node.all_input_nodes[0]
    return getattr(node.target, "_opname", "") in SOFTMAXES or spelled_softmax(node) is not None


def _folded(node: fx.Node) -> set[Fact]:
    """What feeds a batch normalization and nothing else."""
    source = node.args[0]
    if not isinstance(source, fx.Node) or len(source.users) != 1:
        return set()
    name = getattr(source.target, "_opname", "")
    if name in _LINEAR:
        return {Fact.HAS_LINEAR_BATCHNORM}
    return {Fact.HAS_CONV_BATCHNORM} if name in _CONV2D | {"conv1d", "conv3d"} else set()


def _operators(model: Model) -> list[Any]:
    graphs = [m.graph for m in model.program.graph_module.modules() if isinstance(m, fx.GraphModule)]
    return [node for graph in graphs for node in graph.nodes if isinstance(node.target, torch._ops.OpOverload)]


def _rank(node: fx.Node) -> int:
    value = node.meta.get("val")
    return value.dim() if isinstance(value, Tensor) else 0


def _precision(model: Model) -> str:
    short = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16", torch.float64: "f64"}
    kinds: dict[torch.dtype, int] = {}
    for value in model.program.state_dict.values():
        if isinstance(value, Tensor) and value.dtype in short:
            kinds[value.dtype] = kinds.get(value.dtype, 0) + value.numel()
    return short[max(kinds, key=lambda kind: kinds[kind])] if kinds else "f32"
