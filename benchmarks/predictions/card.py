"""Reads what was timed on one card, counts the same networks without it, and tests the law of single devices."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from predictions.card_models import MODELS
from vivace.core.prediction.work import Operator, OperatorKind
from vivace.devices.catalog import device
from vivace.devices.prediction.fitting import Vector, factor95
from vivace.devices.prediction.operators import Timed, fit_operators, peaks_of
from vivace.runtimes.graphs import recorder

FILE = Path(__file__).with_name("card_h100.json")
CARD = "h100-sxm"
DTYPES = {"bf16": torch.bfloat16, "f32": torch.float32}
LONG_SECONDS = 2e-4
"""Products that take this long tell of the card and not of launching them."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """One timed call or step of a network; the network is "product" for a single product."""

    network: str
    precision: str
    batch: int
    training: bool
    timed: Timed


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
            yield Measured("product", precision, m, False, Timed((one,), _peaks(precision), seconds))


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


def fit(measured: list[Measured]) -> Vector:
    """The law that these imply."""
    return fit_operators([one.timed for one in measured])
