"""Graphs with operators that quantize and dequantize: made known to PyTorch, checked, lowered to kernels in int8."""

from __future__ import annotations

import functools
import logging
import warnings
from typing import Any

from torch import Tensor, fx
from torch.export import ExportedProgram

from vivace.core.errors import ArtifactError, MissingExtra

NAMESPACE = "quantized_decomposed"
BY_CHANNEL = "dequantize_per_channel"


@functools.cache
def register() -> None:
    """Make the operators known to this process; they are PyTorch's own, and need no other package."""
    from torch.ao.quantization.fx import _decomposed  # noqa: F401


def is_quantized(graph: fx.Graph) -> bool:
    """Whether a graph holds such operators."""
    return any(getattr(node.target, "namespace", "") == NAMESPACE for node in graph.nodes)


def lower(program: ExportedProgram, purpose: str) -> None:
    """Before Inductor compiles a program: where it is quantized, see that Inductor knows which parts are int8 kernels.

    PyTorch 2.13 knows them itself; where PyTorch does not, torchao teaches it. Without that the result is right and
    slower than float32. Raises MissingExtra, which names the purpose, and ArtifactError as `check` does.
    """
    if not is_quantized(program.graph):
        return
    check(program)
    try:
        from torch._inductor.fx_passes import quantization  # noqa: F401
    except ImportError:
        x86_quantizer(purpose)


def check(program: ExportedProgram) -> None:
    """Raise ArtifactError unless each channel of each weight has a scale and a zero point, as kernels trust it has."""
    targets = {spec.arg.name: spec.target for spec in program.graph_signature.input_specs if hasattr(spec.arg, "name")}
    values = {name: program.state_dict.get(target) for name, target in targets.items() if target is not None}
    for node in program.graph.nodes:
        if getattr(node.target, "_opname", "") == BY_CHANNEL:
            weight, scales, zeros = (values.get(getattr(argument, "name", "")) for argument in node.args[:3])
            if not _fit(weight, scales, zeros, node.args[3]):
                raise ArtifactError(f"{node.name} has no scale and zero point for each channel of a weight")


def _fit(weight: Tensor | None, scales: Tensor | None, zeros: Tensor | None, axis: Any) -> bool:
    if weight is None or scales is None or zeros is None or type(axis) is not int or not 0 <= axis < weight.dim():
        return False
    return list(scales.shape) == list(zeros.shape) == [weight.shape[axis]]


def x86_quantizer(purpose: str) -> Any:
    """torchao's module of the quantizer for Inductor on x86; importing it registers the lowering.

    Raises MissingExtra, which names the purpose.
    """
    loud = logging.getLogger("torchao"), logging.getLogger("torch.utils._pytree")
    levels = [logger.level for logger in loud]
    try:
        for logger in loud:  # it tells of libraries for graphics cards that it does not find
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer as x86
    except ImportError:
        raise MissingExtra("torchao", "ao", purpose) from None
    finally:
        for logger, level in zip(loud, levels, strict=True):
            logger.setLevel(level)
    return x86
