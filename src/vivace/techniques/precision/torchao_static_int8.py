"""Convolutions and linear layers in 8-bit integers inside the PyTorch graph, scaled by what calibration data showed."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Sequence, Set
from typing import Any

import torch
from torch.fx import GraphModule, Node

from vivace.core.cost import Cost
from vivace.core.errors import NotApplicable
from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.program import Model
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.work import Work
from vivace.runtimes import eager
from vivace.runtimes.graphs import quantized
from vivace.techniques.calibration import first_calls
from vivace.techniques.graph import GraphEdit, torch_program
from vivace.techniques.sensitivity import check_keep, kept_counts, kept_layers, kept_operators, with_quantized

aten = torch.ops.aten
OWN_KERNELS = (aten.linear.default, aten.conv2d.default)
PRODUCTS = (*OWN_KERNELS, aten.conv1d.default)
UNKNOWN = (AssertionError, AttributeError, LookupError, NotImplementedError, RuntimeError, TypeError, ValueError)
"""What the tool raises for graphs that it does not know."""
MOST_SAMPLES = 300
KEPT_COSTS = 0.05
"""What a layer that stays in float is guessed to cost, as a share of the whole time."""


@dataclasses.dataclass(frozen=True)
class TorchaoStaticInt8(Technique):
    """Weights in int8, one scale an output channel, and activations in uint8 with fixed scales from calibration calls.

    torchao's quantization of exported graphs (PT2E) for x86: two-dimensional convolutions of more than one channel,
    linear layers, and the pooling and concatenation between them; batch normalization is folded into convolutions
    first. The stored graph says where numbers are quantized and dequantized, and takes PyTorch only;
    `inductor(freeze=True)` makes int8 kernels of oneDNN of it. Without that it would be slower than float32, so no such
    plan is legal. `keep` is how many layers stay in float: those that cost the output most for the time that int8 saves
    there (`techniques.sensitivity`), beside those that the user named. `reduce_range` keeps activations to 7 bits, for
    processors without int8 dot products. About 300 samples are read. Raises NotApplicable without calibration data or
    when nothing was quantized, and MissingExtra without torchao.

    Source: https://docs.pytorch.org/ao/stable/pt2e_quantization/pt2e_quant_x86_inductor.html (torchao 0.18); Jacob et
    al., CVPR 2018 (arXiv:1712.05877).

    >>> str(TorchaoStaticInt8(keep=2))
    'torchao-static-int8(keep=2)'
    """

    keep: int = 0
    reduce_range: bool = False

    stage = Stage.PRECISION
    family = Family.ALGORITHM
    effect = Effect.CHANGED
    needs = frozenset(
        {
            *(Fact.TORCH_GRAPH, Fact.FLOAT32, Fact.UNQUANTIZED, Fact.UNCOMPILED, Fact.ON_CPU),
            *(Fact.CALIBRATION, Fact.INT8_PRODUCTS),
        }
    )
    breaks = frozenset({Fact.FLOAT32, Fact.UNQUANTIZED, Fact.ONNX_READY, Fact.OPENVINO_READY})
    on_without = (("reduce_range", Fact.INT8_INSTRUCTIONS),)
    source = "torchao 0.18, PT2E quantization with X86InductorQuantizer; Jacob et al., CVPR 2018, arXiv:1712.05877"
    packages = ("torchao",)
    extra = "ao"

    def __post_init__(self) -> None:
        check_keep(self.name(), self.keep)

    @classmethod
    def variants(cls, work: Work, machine: Machine) -> Iterator[Technique]:
        """Every layer quantized; `gentler` leaves some in float."""
        yield cls(**cls.here(machine))

    def gentler(self, work: Work) -> Iterator[Technique]:
        """More and more layers in float, up to all but one."""
        return (dataclasses.replace(self, keep=count) for count in kept_counts(work, self.keep))

    def idle_beside(self, others: Sequence[Technique]) -> str | None:
        """Why a plan with these is slower than float32: nothing in it makes int8 kernels of the graph."""
        if any(other.stage is Stage.COMPILE and other.settings().get("freeze") for other in others):
            return None
        return f"{self} needs a later technique that makes int8 kernels of its graph: inductor(freeze=True)"

    def rewrite(self, cost: Cost) -> Cost:
        """A quarter of the weights, int8 products, and operators around each that only a compiler fuses; nothing where
        most of the work is in recurrent cells, which stay in float."""
        if cost.mostly_recurrent:
            return cost
        return cost.replace(
            precision="int8",
            weight_bytes=cost.weight_bytes / 4,
            activation_bytes=cost.activation_bytes * 0.6,
            operators=cost.operators * 2,
            efficiency=cost.efficiency * 0.6 / (1 + KEPT_COSTS * self.keep),
        )

    def apply(self, model: Model, work: Work) -> Model:
        """The model with its graph quantized."""
        program = torch_program(model)
        if work.calibration is None:
            raise NotApplicable(f"needs {Fact.CALIBRATION.value}")
        x86 = quantized.x86_quantizer(self.name())
        kept = kept_layers(model, work, self.keep)
        kept_operators({node.name: node.name for node in program.graph.nodes}, kept, "PyTorch")
        quantizer = _quantizer(x86, kept, self.reduce_range)
        edit = GraphEdit(program)
        edit.take(_quantized(eager.as_module(program), work, quantizer))
        names = [node.name for node in edit.calls(*PRODUCTS) if _takes_integers(node)]
        if not names:
            raise NotApplicable("torchao found no convolution or linear layer to quantize")
        made = model.replace(program=edit.close(), lineage=(*model.lineage, str(self)))
        return with_quantized(made, names, kept)


def _quantized(module: GraphModule, work: Work, quantizer: Any) -> GraphModule:
    """The module with operators that quantize and dequantize, their scales from the calibration calls."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    with torch.no_grad(), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tool draws random numbers, and warns of its own deprecations
        try:
            observed = prepare_pt2e(module, quantizer)
            for leaves in first_calls(work, MOST_SAMPLES):
                observed(*leaves)
            converted: GraphModule = convert_pt2e(observed)
        except UNKNOWN as error:
            raise NotApplicable(f"torchao cannot quantize the graph: {type(error).__name__}: {error}") from error
    return converted


def _quantizer(x86: Any, kept: Set[str], reduce_range: bool) -> Any:
    """torchao's quantizer, which also takes layers that it does not know by the module they came from (attention's own
    products with weights), and leaves alone elementwise products and the layers that are to stay in float."""
    config = x86.get_default_x86_inductor_quantization_config(reduce_range=reduce_range)

    class Quantizer(x86.X86InductorQuantizer):  # type: ignore[misc]
        def annotate(self, model: GraphModule) -> GraphModule:
            alone = {
                n for n in model.graph.nodes if n.name in kept or n.target is aten.mul.Tensor or _has_one_channel(n)
            }
            layers = [n for n in model.graph.nodes if n.target in OWN_KERNELS and n not in alone]
            for linear in (n for n in layers if n.target is aten.linear.default):
                _read_whole_rows(linear)
            x86._mark_nodes_as_annotated(list(alone))
            super().annotate(model)
            for layer in layers:
                if not x86._is_node_annotated(layer) and layer.args[1].op == "get_attr":
                    is_linear = layer.target is aten.linear.default
                    annotate = self._annotate_linear_node_helper if is_linear else self._annotate_conv_node_helper
                    annotate(layer, True, config)
            return model

    return Quantizer().set_global(config)


def _has_one_channel(node: Node) -> bool:
    """Whether a node is a convolution of one channel: PyTorch 2.13 expects another order of what its int8 kernel writes
    than the kernel has, for one channel lies the same in both."""
    return node.target is aten.conv2d.default and node.args[0].meta["val"].shape[1] == 1  # type: ignore[union-attr]


def _read_whole_rows(linear: Node) -> None:
    """Have a linear layer read rows that lie one after the other: Inductor's patterns fail on others of free sizes."""
    x: Any = linear.args[0]
    if x.meta["val"].dim() > 2:
        with linear.graph.inserting_before(linear):
            whole = linear.graph.call_function(aten.contiguous.default, (x,))
        whole.meta = {"val": x.meta["val"]}
        linear.update_arg(0, whole)


def _takes_integers(product: Node) -> bool:
    """Whether a product's weight is stored in integers."""
    weight = product.args[1]
    return isinstance(weight, Node) and getattr(weight.target, "namespace", "") == quantized.NAMESPACE
