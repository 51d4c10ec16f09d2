"""NNCF, imported without telemetry or noise, called without a trace in the process's random state, and what it did."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np

from vivace.core.errors import MissingExtra
from vivace.core.program import Form, Model
from vivace.runtimes import onnx_graph, openvino_graph

INTEGERS = frozenset({"i4", "u4", "i8", "u8"})
"""OpenVINO's types of quantized constants."""
ROUNDING = "FakeQuantize"
CARRIERS = frozenset({"Convert", "Multiply", "Subtract", "Reshape", "Transpose"})
"""What stands between a constant of integers and its product: it is widened, scaled, and laid out."""


def import_nncf(purpose: str) -> Any:
    """The nncf package. Raises MissingExtra, which names the purpose."""
    openvino_graph.silence_telemetry()
    try:
        with onnx_graph.quiet():
            import nncf
    except ImportError:
        raise MissingExtra("nncf", "openvino", purpose) from None
    return nncf


def integer_layers(made: Model, captured: Model) -> list[str]:
    """The layers of the captured graph whose products take integers in an OpenVINO model that was made of it."""
    if captured.form is not Form.TORCH:
        return []
    graph = openvino_graph.import_openvino().Core().read_model(str(made.program))
    taking = {op.get_friendly_name() for op in graph.get_ordered_ops() if _takes_integers(op)}
    return [layer for operator, layer in openvino_graph.layers_of(made, captured).items() if operator in taking]


def _takes_integers(operator: Any) -> bool:
    """Whether an operator is a product by weights in integers, or of two values that were both rounded: a neighbour in
    integers may round one operand of a product that stays in float."""
    if operator.get_type_name() not in openvino_graph.PRODUCTS:
        return False
    (_, is_rounded), (source, by_integers) = (_origin(operator.input_value(place).get_node()) for place in (0, 1))
    return by_integers and (is_rounded or source.get_type_name() == "Constant")


def _origin(source: Any) -> tuple[Any, bool]:
    """The operator that a value comes from, and whether it is in integers there or was rounded as they are since."""
    is_rounded = False
    while source.get_type_name() in (*CARRIERS, ROUNDING):
        is_rounded |= source.get_type_name() == ROUNDING
        source = source.input_value(0).get_node()
    is_stored = source.get_type_name() == "Constant" and source.get_element_type().get_type_name() in INTEGERS
    return source, is_rounded or is_stored


@contextlib.contextmanager
def kept_random_state() -> Iterator[None]:
    """NNCF seeds Python's and numpy's generators; put them back."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
