"""What the model's layers take on this machine, MEASURED in a fresh worker: one thread, each of some precisions."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path

from vivace.measure.process import Limits, Phase, Worker
from vivace.runtimes.graphs.linear import LinearLayer

ENTRY = "vivace.measure.services.products:open_products"
PRECISIONS = ("f32", "bf16")
THREADS = 1


@dataclasses.dataclass(frozen=True)
class LayerTimes:
    """Median seconds of each layer in each precision, of casting between two precisions at each place (before the first
    layer, between two, after the last), and how many calls they are of."""

    seconds: tuple[tuple[float, ...], ...]
    switch_seconds: tuple[tuple[tuple[float, ...], ...], ...]
    calls: int


def timed(layers: Sequence[LinearLayer], limits: Limits) -> LayerTimes:
    """Time the layers with the arguments that they met. Raises WorkerFailure where the worker fails."""
    products = [(layer.operator, layer.arguments) for layer in layers]
    sizes = [layer.inputs.numel() for layer in layers] + [layers[-1].result_elements]
    with tempfile.TemporaryDirectory(prefix="vivace-") as folder, Worker(Path(folder), limits) as worker:
        worker.open(ENTRY, {}, products, Phase.LOAD)
        asked = {"threads": THREADS, "precisions": list(PRECISIONS)}
        found = worker.call("seconds", asked, Phase.MEASURE)
        casts = worker.call("casts", {**asked, "sizes": sizes}, Phase.MEASURE)
    switches = tuple(tuple(tuple(row) for row in place) for place in casts["seconds"])
    return LayerTimes(tuple(map(tuple, found["seconds"])), switches, found["calls"] + casts["calls"])
