"""Rewrites a graph so that its products run in a 16-bit float; shared by bfloat16 and float16."""

from __future__ import annotations

from typing import Any

import torch
from torch._ops import HigherOrderOperator
from torch.fx import Node
from torch.fx.node import map_arg

from vivace.core.cost import Cost
from vivace.core.errors import NotApplicable
from vivace.core.program import Model
from vivace.techniques.graph import GraphEdit, torch_program

aten = torch.ops.aten

PRODUCTS = {
    *("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "convolution"),
    *("linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "einsum", "scaled_dot_product_attention", "lstm", "gru"),
}
FOLLOWERS = {
    *("add", "sub", "mul", "div", "maximum", "minimum", "where", "cat", "stack"),
    *("layer_norm", "group_norm", "rms_norm", "prelu"),
}
"""Narrow as soon as one input is: sums of a residual stream, and normalizations with float32 weights."""
KEEPERS = FOLLOWERS | {
    *("view", "reshape", "flatten", "unflatten", "transpose", "permute", "t", "unsqueeze", "squeeze", "movedim"),
    *("select", "slice", "narrow", "expand", "expand_as", "repeat", "contiguous", "clone", "detach", "alias"),
    *("to", "_to_copy", "type_as", "chunk", "split", "split_with_sizes", "unbind", "pad", "constant_pad_nd", "flip"),
    *("roll", "swapaxes", "view_as", "reshape_as", "index", "index_select", "gather", "pixel_shuffle", "getitem"),
    *("sym_size", "zeros_like", "ones_like", "full_like", "masked_fill", "dropout", "feature_dropout"),
    *("relu", "relu6", "hardtanh", "hardswish", "hardsigmoid", "leaky_relu", "elu", "gelu", "silu", "mish"),
    *("sigmoid", "tanh", "softplus", "glu", "neg", "abs", "clamp", "softmax", "amax", "mean"),
    *("batch_norm", "instance_norm", "max_pool1d", "max_pool2d", "avg_pool1d", "avg_pool2d"),
    *("adaptive_avg_pool1d", "adaptive_avg_pool2d"),
}
"""Operators that have a 16-bit kernel everywhere and lose nothing that matters by it. Any other runs in float32."""


def narrow(edit: GraphEdit, dtype: torch.dtype) -> None:
    """Make every float32 product of the graph one of `dtype`, with its weights converted once and for all.

    Values stay narrow from product to product through the operators of KEEPERS; inputs are converted where a product
    first meets them, and outputs back to the dtypes that they had. Raises NotApplicable when there is no float32
    product, or when an operator that needs float32 writes into its input.
    """
    _Narrowing(edit, dtype).run()


class _Narrowing:
    def __init__(self, edit: GraphEdit, dtype: torch.dtype) -> None:
        self.edit = edit
        self.dtype = dtype
        self.weights: dict[str, Node] = {}
        self.casts: dict[tuple[str, torch.dtype], Node] = {}
        calls = [node for node in edit.graph.nodes if node.op == "call_function"]
        self.may_share_casts = not any(_writes(node) for node in calls)

    def run(self) -> None:
        dtypes = [_dtype(node) for node in self._results()]
        products = sum(self._visit(node) for node in list(self.edit.graph.nodes) if node.op == "call_function")
        if not products:
            raise NotApplicable("the graph has no float32 product: no convolution, linear layer, attention or LSTM")
        output = self.edit.graph.output_node()
        results = [self._widened(node, dtype, output) for node, dtype in zip(self._results(), dtypes, strict=True)]
        output.args = (tuple(results),)

    def _results(self) -> list[Any]:
        return list(self.edit.graph.output_node().args[0])  # type: ignore[arg-type]

    def _visit(self, node: Node) -> bool:
        """Adapt one call; returns whether it is a product that became narrow."""
        if isinstance(node.target, HigherOrderOperator):
            self._convert(node, self.dtype, torch.float32)
            return False
        name = _operator(node)
        if name == "_assert_tensor_metadata":
            self.edit.graph.erase_node(node)  # it asserts the dtypes of the original trace
            return False
        is_product = name in PRODUCTS and torch.float32 in self._inputs(node)
        if is_product or self._follows(name, node):
            self._convert(node, torch.float32, self.dtype)
        elif name not in KEEPERS and name not in PRODUCTS:
            self._convert(node, self.dtype, torch.float32)
        self._infer(node)
        return is_product

    def _inputs(self, node: Node) -> list[torch.dtype | None]:
        return [_dtype(source) for source in node.all_input_nodes]

    def _follows(self, name: str, node: Node) -> bool:
        if name == "embedding":
            return self.edit.weight(node.args[0]) is not None
        return name in FOLLOWERS and self.dtype in self._inputs(node) and not _writes(node)

    def _infer(self, node: Node) -> None:
        try:
            self.edit.infer(node)
        except RuntimeError:  # the operator does not take this mixture of dtypes
            self._convert(node, self.dtype, torch.float32)
            self.edit.infer(node)

    def _convert(self, node: Node, old: torch.dtype, new: torch.dtype) -> None:
        if not any(_dtype(source) is old for source in node.all_input_nodes):
            return
        if _writes(node):
            raise NotApplicable(f"{node.target} writes into its input, so its dtype cannot be changed alone")
        change = lambda source: self._cast(source, new, node) if _dtype(source) is old else source  # noqa: E731
        node.args, node.kwargs = map_arg((node.args, node.kwargs), change)

    def _cast(self, source: Node, dtype: torch.dtype, user: Node) -> Node:
        if self.edit.weight(source) is not None and dtype is self.dtype:
            return self._narrow_weight(source)
        key = (source.name, dtype)
        if key in self.casts:
            return self.casts[key]
        with self.edit.graph.inserting_before(user):
            cast = self._saturated(source, user) if dtype is self.dtype else source
            cast = self._call(aten.to.dtype, cast, dtype)
        if self.may_share_casts:
            self.casts[key] = cast
        return cast

    def _saturated(self, source: Node, user: Node) -> Node:
        """A mask keeps its lowest float32 instead of becoming minus infinity, which could mask whole rows to NaN."""
        is_mask = _operator(user) == "scaled_dot_product_attention" and source not in user.args[:3]
        is_mask = is_mask or (_operator(user) == "add" and source.meta["val"].shape != user.meta["val"].shape)
        limits = torch.finfo(self.dtype)
        return self._call(aten.clamp.default, source, limits.min, limits.max) if is_mask else source

    def _call(self, target: Any, *args: Any) -> Node:
        node = self.edit.graph.call_function(target, args)
        self.edit.infer(node)
        return node

    def _narrow_weight(self, source: Node) -> Node:
        if source.name not in self.weights:
            value = self.edit.weight(source)
            assert value is not None
            limits = torch.finfo(self.dtype)
            short = str(self.dtype).removeprefix("torch.")
            self.weights[source.name] = self.edit.add_weight(
                f"{source.name}_{short}", value.clamp(limits.min, limits.max).to(self.dtype)
            )
        return self.weights[source.name]

    def _widened(self, result: Any, dtype: torch.dtype | None, output: Node) -> Any:
        if dtype is None or _dtype(result) is dtype:
            return result
        return self._cast(result, dtype, output)


def _dtype(node: object) -> torch.dtype | None:
    value = node.meta.get("val") if isinstance(node, Node) else None
    return value.dtype if isinstance(value, torch.Tensor) else None


def _operator(node: Node) -> str:
    """The operator's plain name, without its overload and the mark of writing into its input."""
    schema = getattr(node.target, "_schema", None)
    name = str(schema.name).partition("::")[2] if schema is not None else getattr(node.target, "__name__", "")
    return name.rstrip("_") or name


def _writes(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return bool(schema is not None and schema.is_mutable)


def narrowed(model: Model, dtype: torch.dtype, name: str) -> Model:
    """The model with its products in `dtype`; `name` is the technique's, for the lineage. Raises NotApplicable."""
    edit = GraphEdit(torch_program(model))
    narrow(edit, dtype)
    return model.replace(program=edit.close(), lineage=(*model.lineage, name))


def narrowed_cost(cost: Cost, precision: str) -> Cost:
    """Half the bytes, products at the ceiling of this 16-bit precision, a conversion at each end."""
    return cost.replace(
        precision=precision,
        weight_bytes=cost.weight_bytes / 2,
        activation_bytes=cost.activation_bytes / 2,
        operators=cost.operators + 2,
    )


def check_castable(model: torch.nn.Module) -> None:
    """Raise NotApplicable where autocast would change nothing in a model's passes, or would break them."""
    if not any(value.dtype is torch.float32 for value in model.parameters()):
        kinds = ", ".join(sorted({str(value.dtype).removeprefix("torch.") for value in model.parameters()}))
        raise NotApplicable(f"the model has no float32 parameter to cast (it has {kinds or 'none'})")
    bilinear = next((name for name, one in model.named_modules() if isinstance(one, torch.nn.Bilinear)), None)
    if bilinear is not None and device_of(model) == "cpu":
        raise NotApplicable(
            f"{bilinear or 'the model'} is an nn.Bilinear, whose weight PyTorch's autocast leaves in float32 on a CPU "
            "beside inputs that it has cast, which that layer does not take"
        )


def device_of(model: torch.nn.Module) -> str:
    """The kind of device that a model's parameters are on."""
    return next((parameter.device.type for parameter in model.parameters()), "cpu")
