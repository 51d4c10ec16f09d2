"""NNCF, imported without telemetry or noise, and called without a trace in the process's random state."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np

from vivace.core.errors import MissingExtra
from vivace.runtimes import onnx_graph, openvino_graph


def import_nncf(purpose: str) -> Any:
    """The nncf package. Raises MissingExtra, which names the purpose."""
    openvino_graph.silence_telemetry()
    try:
        with onnx_graph.quiet():
            import nncf
    except ImportError:
        raise MissingExtra("nncf", "openvino", purpose) from None
    return nncf


@contextlib.contextmanager
def kept_random_state() -> Iterator[None]:
    """NNCF seeds Python's and numpy's generators; put them back."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
