"""Which layers suffer most from 8-bit integers: the output's error when one layer alone is quantized, beside its time.

Source: the per-layer signal-to-noise ranking of quantization debuggers, such as Nagel et al., A White Paper on Neural
Network Quantization, 2021 (arXiv:2106.08295), section 3.6; time beside it is our own.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from vivace.core.errors import NotApplicable, UsageError
from vivace.core.layer import Layer
from vivace.core.program import Form, Model
from vivace.core.work import Work
from vivace.devices.disk import write_whole
from vivace.measure.clock import SystemClock
from vivace.runtimes import eager
from vivace.runtimes.graphs.layers import each_name, is_product, path_of
from vivace.techniques.calibration import first_calls

SAMPLES = 16
"""How many samples the error is taken over, at least one call."""
ACTIVATION_LEVELS = 255
WEIGHT_LEVELS = 127
MOST_FEW = 8
"""So many layers may be kept in every count; of more, some counts are skipped."""


@dataclasses.dataclass(frozen=True)
class Sensitivity:
    """One layer's share in the error and in the time of a fully quantized model.

    `noise` is the output's error power when this layer alone is in int8, as a share of the output's power; `sqnr_db`
    the same in decibels; `seconds_share` the layer's share of the time of all layers in float32. `label` names the
    layer as lists of fusions and profiles do.
    """

    layer: Layer
    noise: float
    seconds_share: float
    label: str

    @property
    def sqnr_db(self) -> float:
        """Signal to quantization noise of the output, in decibels."""
        return -10 * math.log10(self.noise) if self.noise > 0 else math.inf


def worst_layers(model: Model, work: Work, count: int) -> tuple[str, ...]:
    """The names of the layers to keep in float: those that cost the most error for the time that int8 would save there.

    Raises NotApplicable where layers cannot be compared: without calibration data, without a captured graph, or when
    there are no more layers than asked for.
    """
    if count == 0:
        return ()
    found = ranked(model, work)
    if count >= len(found):
        raise NotApplicable(f"asks to keep {count} layers in float, and the model has {len(found)}")
    return tuple(entry.layer.name for entry in found[:count])


def kept_layers(model: Model, work: Work, count: int = 0) -> frozenset[str]:
    """The names of the layers that a quantization leaves in float: those that the user named, and the `count` worst.

    Raises NotApplicable as `worst_layers` does.
    """
    return frozenset({*worst_layers(model, work, count), *work.keep})


def kept_operators(found: Mapping[str, str], kept: Set[str], graph: str) -> list[str]:
    """The operators of an engine's graph that must stay in float: those that `found` says are one of the kept layers.

    Raises NotApplicable for a layer that is not among them: it is never guessed.
    """
    lost = sorted(kept - set(found.values()))
    if lost:
        raise NotApplicable(f"the layers {', '.join(lost)} cannot be told apart in the {graph} graph")
    return [operator for operator, layer in found.items() if layer in kept]


def with_quantized(model: Model, layers: Iterable[str], kept: Set[str]) -> Model:
    """The model that was made, which says which layers are in integers now.

    Raises NotApplicable where one of them should have stayed in float, as of layers that share their weights.
    """
    quantized = tuple(dict.fromkeys((*model.quantized, *layers)))
    broken = sorted(set(quantized) & kept)
    if broken:
        raise NotApplicable(f"it cannot leave {', '.join(broken)} in float")
    return model.replace(quantized=quantized)


def kept_counts(work: Work, already: int = 0) -> Iterator[int]:
    """How many layers a gentler setting keeps in float, up to all but one: every count where there are few layers, else
    counts that double up to half of the layers, and then leave half as many each time.

    One layer may take most of the time: in int8 it may be worth more than all others together. A search that halves
    between the settings tries few of them.

    >>> from pathlib import Path
    >>> from vivace.core.cost import Cost
    >>> def of(count):
    ...     layers = (Layer("linear", "", "linear"),) * count
    ...     return Work("w", None, frozenset(), Cost(0, 0, 0, 0), Path(), layers=layers)
    >>> list(kept_counts(of(0))), list(kept_counts(of(3))), list(kept_counts(of(50), already=2))
    ([], [1, 2], [4, 8, 16, 34, 42, 46, 48, 49])
    """
    layers = len(work.layers)
    doubling = [count for count in (1 << place for place in range(layers.bit_length())) if 2 * count <= layers]
    few = range(1, layers) if layers <= MOST_FEW else ()
    yield from sorted(count for count in {*few, *doubling, *(layers - left for left in doubling)} if count > already)


def check_keep(name: str, keep: object) -> None:
    """Raise UsageError unless this is a count of layers."""
    if isinstance(keep, bool) or not isinstance(keep, int) or keep < 0:
        raise UsageError(f"{name} received keep={keep!r}; allowed is a whole number of layers, 0 or more")


def ranked(model: Model, work: Work) -> list[Sensitivity]:
    """Every layer, the one to keep in float first. Found once in a run for each lineage, then read."""
    if model.form is not Form.TORCH:
        raise NotApplicable("layers are compared in a PyTorch graph only")
    if work.calibration is None:
        raise NotApplicable("comparing layers needs calibration data")
    kept = kept_ranking(work, model.lineage)
    if kept is not None:
        return kept
    file = _file(work, model.lineage)
    found = measure(model, list(first_calls(work, SAMPLES)))
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, json.dumps([dataclasses.asdict(entry) for entry in found]))
    return found


def kept_ranking(work: Work, lineage: Sequence[str]) -> list[Sensitivity] | None:
    """What `ranked` found in this run for a model of this lineage; None where it was not asked."""
    file = _file(work, lineage)
    return [_from_json(entry) for entry in json.loads(file.read_text())] if file.is_file() else None


def measure(model: Model, calls: Sequence[Sequence[Tensor]]) -> list[Sensitivity]:
    """Quantize one layer after the other in simulation, and compare the model's outputs with those in float."""
    lifted = eager.lifted_values(model.program)
    signature = model.program.graph_signature
    weights = frozenset(str(spec.arg.name) for spec in signature.input_specs if spec.target is not None)
    noise: dict[str, float] = {}
    seconds: dict[str, float] = {}
    layers: dict[str, Layer] = {}
    labels: dict[str, str] = {}
    with torch.no_grad():
        for leaves in calls:
            probe = _Probe(model.program, weights)
            probe.run(*lifted, *leaves)
            products = probe.products()
            for node, label in zip(products, each_name(products), strict=True):
                labels[node.name] = label
                layers[node.name] = Layer(node.name, path_of(node), node.target._opname)  # type: ignore[union-attr]
                seconds[node.name] = seconds.get(node.name, 0.0) + probe.seconds[node]
                noise[node.name] = noise.get(node.name, 0.0) + probe.noise_of(node) / len(calls)
    total = sum(seconds.values()) or 1.0
    found = [Sensitivity(layer, noise[name], seconds[name] / total, labels[name]) for name, layer in layers.items()]
    return sorted(found, key=lambda entry: -entry.noise / max(entry.seconds_share, 1e-6))


class _Probe(fx.Interpreter):
    """Runs a graph, keeps every value and each product's time, and runs again what depends on a quantized product."""

    def __init__(self, program: ExportedProgram, weights: frozenset[str]) -> None:
        super().__init__(program.graph_module, garbage_collect_values=False)
        self._nodes: list[fx.Node] = list(program.graph_module.graph.nodes)
        self.seconds: dict[fx.Node, float] = {}
        self._clock = SystemClock()
        self._weights = weights

    def run_node(self, n: fx.Node) -> Any:
        """Run one node, with its time."""
        started = self._clock.now()
        result = super().run_node(n)
        self.seconds[n] = self._clock.now() - started
        return result

    def products(self) -> list[fx.Node]:
        """The products, in the graph's order."""
        return [node for node in self._nodes if is_product(node)]

    def noise_of(self, layer: fx.Node) -> float:
        """The outputs' error power, as a share of their power, when this product alone is quantized."""
        kept = dict(self.env)
        try:
            args, kwargs = self.fetch_args_kwargs_from_env(layer)
            self.env[layer] = layer.target(*self._quantized(layer, args), **kwargs)  # type: ignore[operator]
            changed = {layer}
            answer: Any = None
            for node in self._nodes:
                if node.op == "output":
                    answer = [self.env[value] for value in node.all_input_nodes]
                elif node is not layer and changed & set(node.all_input_nodes):
                    self.env[node] = super().run_node(node)
                    changed.add(node)
            reference = [kept[value] for value in self._nodes[-1].all_input_nodes]
        finally:
            self.env = kept
        return _noise(reference, answer)

    def _quantized(self, layer: fx.Node, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """A product's arguments in simulated int8: weights by output channel, activations by tensor; a bias stays."""
        name = layer.target._opname  # type: ignore[union-attr]
        channels = 0 if name.startswith("conv") or name == "linear" else -1
        changed = list(args)
        for place in (1, 2) if name == "addmm" else (0, 1):
            is_weight = self._is_weight(layer.args[place])
            changed[place] = _by_channel(args[place], channels) if is_weight else _by_tensor(args[place])
        return tuple(changed)

    def _is_weight(self, value: Any) -> bool:
        """Whether a value comes from one weight alone, through views of it."""
        while isinstance(value, fx.Node) and value.op == "call_function" and len(value.all_input_nodes) == 1:
            value = value.all_input_nodes[0]
        return isinstance(value, fx.Node) and value.name in self._weights


def _by_channel(weight: Tensor, axis: int) -> Tensor:
    """Symmetric int8 with a scale for each index of an axis."""
    others = [dim for dim in range(weight.dim()) if dim != axis % weight.dim()]
    scale = weight.abs().amax(others, keepdim=True).clamp_min(1e-12) / WEIGHT_LEVELS
    return (weight / scale).round().clamp(-WEIGHT_LEVELS, WEIGHT_LEVELS) * scale


def _by_tensor(value: Tensor) -> Tensor:
    """Asymmetric 8 bits over the tensor's own range, which always holds zero."""
    if not value.is_floating_point():
        return value
    low, high = value.amin().clamp_max(0.0), value.amax().clamp_min(0.0)
    scale = (high - low).clamp_min(1e-12) / ACTIVATION_LEVELS
    return ((value - low) / scale).round().clamp(0, ACTIVATION_LEVELS) * scale + low


def _noise(reference: Iterable[Any], answer: Iterable[Any]) -> float:
    error = power = 0.0
    for want, got in zip(reference, answer, strict=True):
        if isinstance(want, Tensor) and want.is_floating_point():
            error += float((got.double() - want.double()).square().sum())
            power += float(want.double().square().sum())
    return error / power if power else 0.0


def _file(work: Work, lineage: Sequence[str]) -> Path:
    key = hashlib.sha256("\n".join(lineage).encode()).hexdigest()[:16]
    return work.folder / "sensitivity" / f"{key}.json"


def _from_json(entry: dict[str, Any]) -> Sensitivity:
    return Sensitivity(**{**entry, "layer": Layer(**entry["layer"])})
