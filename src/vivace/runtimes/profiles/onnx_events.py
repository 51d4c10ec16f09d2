"""ONNX Runtime's own profiler: a session writes when each kernel of each run began and how long it took.

Source: https://onnxruntime.ai/docs/performance/tune-performance/profiling-tools.html
"""

from __future__ import annotations

import dataclasses
import json
import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vivace.core.compute import OperatorTime
from vivace.core.program import Model
from vivace.runtimes.fusions.onnx_groups import traced
from vivace.runtimes.graphs.layers import WRAPPER
from vivace.runtimes.onnx_graph import require
from vivace.runtimes.onnx_session import open_session, program_of
from vivace.runtimes.profiles.profiled import Profiled, Shapes, medians

WHOLE = "ONNX Runtime counts whole microseconds"
_RUN, _KERNEL = "model_run", "_kernel_time"


def open_onnx(model: Model, shapes: Shapes, captured: Model) -> Profiled:
    """A session with its profiler on. Raises what opening one raises."""
    require("onnx", "onnx", "reading an ONNX file")
    return _Session(model)


class _Session(Profiled):
    """A session that writes its profile, and the graph that it runs, to a temporary folder."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._folder = tempfile.TemporaryDirectory()
        path = Path(self._folder.name)
        self._optimized = path / "optimized.onnx"
        self._session = open_session(Path(model.program), model.settings, self._optimized, path / "profile")
        super().__init__(program_of(self._session, model))
        self._warm = self._runs = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """One call, counted."""
        self._runs += 1
        return super().__call__(*args, **kwargs)

    def start(self) -> None:
        """What has run so far is left out of what is read."""
        self._warm = self._runs

    def stop(self) -> tuple[tuple[OperatorTime, ...], str]:
        """What the session wrote, with the layers and the weights of the graph that it ran."""
        events = json.loads(Path(self._session.end_profiling()).read_text())
        runs = [list(outermost(run)) for run in kernels(events)[self._warm :]]
        seconds = medians([_sums(run) for run in runs])
        kinds = {_name(event): event["args"] for run in runs for event in run}
        nodes, note = self._nodes()
        found = (_timed(name, taken, kinds[name], nodes) for name, taken in seconds.items())
        return tuple(found), "; ".join(filter(None, (WHOLE, note)))

    def close(self) -> None:
        """Free the session and remove what it wrote."""
        super().close()
        self._folder.cleanup()

    def _nodes(self) -> tuple[Mapping[str, _Node], str]:
        """The nodes of the graph that runs by name, and a note on those that could not be traced."""
        import onnx

        stored = onnx.load(str(self._model.program), load_external_data=False).graph
        runs = onnx.load(str(self._optimized), load_external_data=False).graph
        sizes = {tensor.name: _bytes_of(tensor) for tensor in runs.initializer}
        nodes: dict[str, _Node] = {}
        untold = 0
        for node, layers in traced(stored, runs):
            weights = [name for name in node.input if name in sizes]
            told = owners_of(weights) if layers is None else layers
            untold += layers is None and not told
            nodes[node.name] = _Node(told, sum(sizes[name] for name in weights))
        return nodes, f"{untold} of its operators could not be traced to layers" if untold else ""


@dataclasses.dataclass(frozen=True)
class _Node:
    """What the graph that runs tells of a node: its layers, and the bytes of its weights."""

    layers: tuple[str, ...]
    weight_bytes: int


def owners_of(weights: Iterable[str]) -> tuple[str, ...]:
    """The layers that weights of an operator belong to, by the names that the exporter gave them.

    >>> owners_of(["module.block.0.weight_quantized", "module.block.0.bias_quantized", "relu_scale"])
    ('block.0',)
    """
    named = (name.removeprefix(WRAPPER).rpartition(".")[0] for name in weights if name.startswith(WRAPPER))
    return tuple(dict.fromkeys(filter(None, named)))


def kernels(events: Iterable[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """The events of kernels, run by run, in the order of starting."""
    ordered = sorted((event for event in events if "ts" in event), key=_start)
    ends = [event["ts"] + event["dur"] for event in ordered if event["name"] == _RUN]
    runs: list[list[Mapping[str, Any]]] = [[] for _ in ends]
    place = 0
    for event in ordered:
        if event["cat"] == "Node" and event["name"].endswith(_KERNEL):
            while place < len(ends) - 1 and event["ts"] > ends[place]:
                place += 1
            runs[place].append(event)
    return runs


def outermost(run: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The kernels of a run that are not part of another one: a loop's time holds those of what it repeats."""
    end = -1
    for event in run:
        if event["ts"] >= end:
            end = event["ts"] + event["dur"]
            yield event


def _start(event: Mapping[str, Any]) -> tuple[int, int]:
    return event["ts"], -event["dur"]


def _name(event: Mapping[str, Any]) -> str:
    return str(event["name"]).removesuffix(_KERNEL)


def _sums(run: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for event in run:
        sums[_name(event)] = sums.get(_name(event), 0.0) + event["dur"] * 1e-6
    return sums


def _timed(name: str, seconds: float, notes: Mapping[str, Any], nodes: Mapping[str, _Node]) -> OperatorTime:
    """Activations are those that the profiler told of; weights are the graph's, for packed ones are in no event."""
    node = nodes.get(name)
    if node is None:
        return OperatorTime(notes["op_name"], (), seconds)
    moved = node.weight_bytes + int(notes["activation_size"]) + int(notes["output_size"])
    return OperatorTime(notes["op_name"], node.layers, seconds, moved_bytes=float(moved))


def _bytes_of(tensor: Any) -> int:
    """What a constant of an ONNX file holds."""
    from onnx import helper

    size: int = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    count: int = math.prod(tensor.dims)
    return count * size
