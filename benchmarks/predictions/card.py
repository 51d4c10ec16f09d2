"""Reads what was timed on one card, counts the same networks without it, and tests the law of single devices."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from predictions.card_models import MODELS
from vivace.core.prediction.work import Operator, OperatorKind, Purpose
from vivace.devices.catalog import device
from vivace.devices.prediction.fitting import Vector, factor95
from vivace.devices.prediction.lines import OPERATORS_OF
from vivace.devices.prediction.operators import Timed, fit_operators, peaks_of
from vivace.runtimes.graphs import recorder

FILE = Path(__file__).with_name("card_h100.json")
CARD = "h100-sxm"
DTYPES = {"bf16": torch.bfloat16, "f32": torch.float32}
PRODUCT = "product"
PARTS = (2, 4, 8)
BOUNDED = (tuple(OPERATORS_OF.values()), ("gigaflops",))
"""Which sizes of steps a law is kept from seeing together."""
LONG_SECONDS = 2e-4
"""Products that take this long tell of the card and not of launching them."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """One timed call or step of a network; the network is PRODUCT for a single product."""

    network: str
    precision: str
    batch: int
    training: bool
    timed: Timed

    @property
    def operators(self) -> str:
        """What the law's bounds call its operators."""
        return OPERATORS_OF[Purpose.TRAINING if self.training else Purpose.INFERENCE]

    @property
    def sizes(self) -> dict[str, float]:
        """What the law's bounds are of."""
        flops = sum(one.flops for one in self.timed.operators)
        return {"gigaflops": flops / 1e9, self.operators: len(self.timed.operators)}


@functools.cache
def measurements() -> tuple[Measured, ...]:
    """All that was timed: calls and steps of four networks, and long products."""
    found = json.loads(FILE.read_text(encoding="utf-8"))
    return (*_networks(found["models"]), *_products(found["products"]))


def _networks(rows: list[Any]) -> Iterator[Measured]:
    for name, precision, batch, call, step, _ in rows:
        for training, seconds in ((False, call), (True, step)):
            operators = counted(name, precision, batch, training)
            yield Measured(name, precision, batch, training, Timed(operators, _peaks(precision), seconds[1], training))


def _products(rows: list[Any]) -> Iterator[Measured]:
    for precision, m, k, n, seconds in rows:
        if seconds >= LONG_SECONDS:
            size = DTYPES[precision].itemsize
            one = Operator("linear", OperatorKind.PRODUCT, 2.0 * m * k * n, float(size * (m * k + k * n + m * n)))
            yield Measured(PRODUCT, precision, m, False, Timed((one,), _peaks(precision), seconds))


def _peaks(precision: str) -> Any:
    peaks = peaks_of(device(CARD), precision)
    assert peaks is not None
    return peaks


@functools.cache
def counted(name: str, precision: str, batch: int, training: bool) -> tuple[Operator, ...]:
    """The operators of a call, or of a step with AdamW, counted on tensors without memory."""
    make, give = MODELS[name]
    with torch.device("meta"):
        model, x = make().to(DTYPES[precision]), give(batch)
        x = x.to(DTYPES[precision]) if x.is_floating_point() else x
    if not training:
        with torch.no_grad():
            return recorder.recorded(lambda: model.eval()(x))
    optimizer = torch.optim.AdamW(model.parameters())
    passes = recorder.recorded(lambda: model(x).float().square().mean().backward())
    return (*passes, *recorder.merged(recorder.recorded(optimizer.step)))


def tested() -> dict[str, Any]:
    """Errors on each network by a law that was fitted to the other networks and to products."""
    entries = []
    for name in MODELS:
        law = fit([one for one in measurements() if one.network != name])
        for one in (one for one in measurements() if one.network == name):
            predicted = one.timed.predicted(law)
            entries.append(
                {"network": name, "precision": one.precision, "batch": one.batch, "training": one.training,
                 "seconds": one.timed.seconds, "predicted": predicted}
            )  # fmt: skip
    errors = [entry["predicted"] / entry["seconds"] - 1 for entry in entries]
    sizes = torch.tensor(errors, dtype=torch.float64).abs()
    logs = [float(torch.tensor(1 + error).log()) for error in errors]
    return {
        "card": CARD, "steps": len(entries), "mean": float(sizes.mean()), "median": float(sizes.median()),
        "p90": float(sizes.quantile(0.9)), "worst": float(sizes.max()), "factor95": factor95(logs), "entries": entries,
    }  # fmt: skip


def larger(factor: float) -> dict[str, Any]:
    """Errors on steps larger than any that was fitted, and to what power of the distance an interval of this factor
    must grow to hold them all.

    The law is fitted to what has at most a half, a quarter, an eighth of the most operators of a call and of an update,
    or of the most operations, and predicts the rest. Of an eighth only perceptrons and single products are left.
    """
    cuts = [(part, names, _larger(part, names)) for part in PARTS for names in BOUNDED]
    entries = [(abs(error), distance) for _, _, found in cuts for error, distance in found]
    powers = [(error - math.log(factor)) / math.log(distance) for error, distance in entries]
    return {
        "steps": len(entries), "farthest": max(distance for _, distance in entries),
        "held": sum(error <= math.log(factor) for error, _ in entries), "exponent": max(0.0, *powers),
        "cuts": [
            {"part": part, "sizes": list(names), "steps": len(found), "farthest": max(far for _, far in found),
             "mean_error": float(np.mean([abs(error) for error, _ in found])),
             "worst_error": max((error for error, _ in found), key=abs)}
            for part, names, found in cuts
        ],
    }  # fmt: skip


def _larger(part: int, names: Sequence[str]) -> list[tuple[float, float]]:
    """The errors (logarithms) and distances of steps beyond a law that saw none of which a size, of those named, is
    above this part of the largest; the distance is in those sizes alone, which asks for the higher power."""
    everything = measurements()
    most = bounds_of(everything)
    small = [one for one in everything if all(one.sizes.get(name, 0.0) <= most[name] / part for name in names)]
    law, bounds, found = fit(small), bounds_of(small), []
    for one in everything:
        distance = max(size / bounds[name] for name, size in one.sizes.items() if name in names)
        if distance > 1 and one.network != PRODUCT:
            found.append((math.log(one.timed.predicted(law) / one.timed.seconds), distance))
    return found


def bounds_of(measured: Sequence[Measured]) -> dict[str, float]:
    """The largest of what was measured, by the names of the law's bounds."""
    networks = [one for one in measured if one.network != PRODUCT]
    names = dict.fromkeys(name for one in networks for name in one.sizes)
    return {name: max(one.sizes[name] for one in networks if name in one.sizes) for name in names}


def fit(measured: list[Measured]) -> Vector:
    """The law that these imply."""
    return fit_operators([one.timed for one in measured])
