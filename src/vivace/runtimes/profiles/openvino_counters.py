"""OpenVINO's performance counters: what each operator took so far, on average over all calls since it was compiled.

Source: OpenVINO, the property PERF_COUNT; its CPU plug-in's docs/debug_capabilities/perf_measurements.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from vivace.core.compute import OperatorTime
from vivace.core.program import Form, Model
from vivace.runtimes.fusions.naming import layers_named
from vivace.runtimes.fusions.openvino_groups import kind_and_names, nodes_of, note_of
from vivace.runtimes.openvino_graph import import_openvino
from vivace.runtimes.openvino_session import compiled, exact_shapes, runner
from vivace.runtimes.profiles.profiled import Profiled, Shapes
from vivace.runtimes.program import Program

MEANS = "OpenVINO tells means over calls, in whole microseconds, not medians"
HALF_SECONDS = 0.5e-6
"""The middle of the microsecond that a mean was cut down to."""
_RAN = "EXECUTED"


def open_openvino(model: Model, shapes: Shapes, captured: Model) -> Profiled:
    """The compilation that serves calls of these shapes, with its counters on. Raises what compiling raises."""
    exact = shapes if shapes in exact_shapes(model.settings) else None
    engine = compiled(import_openvino(), model, exact, PERF_COUNT="YES")
    return _Request(engine.create_infer_request(), model, captured)


class _Request(Profiled):
    """An infer request whose counters are read before and after."""

    def __init__(self, request: Any, model: Model, captured: Model) -> None:
        super().__init__(Program(model.signature, model.settings, runner(request, model), Form.OPENVINO))
        self._request = request
        self._model, self._captured = model, captured
        self._calls = self._warm = 0
        self._before: dict[str, float] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """One call, counted."""
        self._calls += 1
        return super().__call__(*args, **kwargs)

    def start(self) -> None:
        """Remember what the counters show for the calls so far."""
        self._warm, self._before = self._calls, self._totals()

    def stop(self) -> tuple[tuple[OperatorTime, ...], str]:
        """What the counters grew by, with the layers that OpenVINO names."""
        means = growth(self._before, self._totals(), self._calls - self._warm)
        operators = self._request.get_compiled_model().get_runtime_model().get_ops()
        ran = [operator for operator in operators if operator.get_friendly_name() in means]
        ran.sort(key=lambda operator: int(note_of(operator, "execOrder") or 0))
        nodes = nodes_of(self._captured, self._model) if self._captured.form is Form.TORCH else {}
        return tuple(_timed(operator, means[operator.get_friendly_name()], nodes) for operator in ran), MEANS

    def _totals(self) -> dict[str, float]:
        """Seconds of each operator over all calls so far: OpenVINO tells their mean in whole microseconds."""
        totals: dict[str, float] = {}
        for info in self._request.get_profiling_info():
            if info.status.name == _RAN:
                mean = info.real_time.total_seconds() + HALF_SECONDS
                totals[info.node_name] = totals.get(info.node_name, 0.0) + mean * self._calls
        return totals


def growth(before: Mapping[str, float], after: Mapping[str, float], calls: int) -> dict[str, float]:
    """Seconds a call by which totals grew in some calls; never below zero, for totals are a little inexact.

    >>> growth({"conv": 9.0, "relu": 1.0}, {"conv": 13.0, "relu": 0.5}, 2)
    {'conv': 2.0, 'relu': 0.0}
    """
    return {name: max(0.0, total - before.get(name, 0.0)) / calls for name, total in after.items()}


def _timed(operator: Any, seconds: float, nodes: Mapping[str, Any]) -> OperatorTime:
    kind, names = kind_and_names(operator)
    return OperatorTime(kind, layers_named(names, nodes), seconds, moved_bytes=_moved_bytes(operator))


def _moved_bytes(operator: Any) -> float | None:
    """Bytes of all that an operator takes, weights too, and gives; None where a size is not known."""
    ports = [*operator.inputs(), *operator.outputs()]
    if any(port.get_partial_shape().is_dynamic for port in ports):
        return None
    return float(sum(math.prod(port.get_shape()) * port.get_element_type().bitwidth / 8 for port in ports))
