"""Writes what the package predicts with: laws fitted to all measurements, with their errors on unseen ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from predictions import card as one_card
from predictions import processes, published
from predictions.published import rates
from vivace.devices.prediction import pod_rate, sharded_scaling, step_time, training_rate
from vivace.devices.prediction.fitting import factor95
from vivace.devices.prediction.processes import latency_of
from vivace.devices.prediction.shapes import Shape

FILE = Path(__file__).resolve().parents[2] / "src" / "vivace" / "devices" / "fitted.toml"
FOLDS = 10
REACH = 4.0
"""How many times the largest step that was measured is still predicted: laws of small steps were tested further."""


def write(document: Mapping[str, Any]) -> None:
    """Fit to everything and write the file."""
    text = [
        "# Laws fitted to measurements, by `python benchmarks/predicting.py --store`; not to be edited by hand.",
        "# `factor95` is the factor within which 95% of measurements were that a fit had not seen,",
        "# `elsewhere_factor95` that of shapes, or devices, of which it had seen nothing. The bounds are",
        "# those of what was measured, and predictions refuse beyond them. Sources: benchmarks/predictions/README.md.",
        "",
        *_steps(),
        *_scaling(document["scaling"]),
        *(line for name in published.CARDS for line in _rate(name, document["rate"][name])),
        *_operators(document["card"]),
        *_pods(document["pods"]),
        *_processes(document["processes_elsewhere"], document["processes_larger"]),
    ]
    FILE.write_text("\n".join(text) + "\n", encoding="utf-8")


def _steps() -> list[str]:
    rows = published.vtrain()
    order = np.random.default_rng(0).permutation(len(rows.runs))
    errors: list[float] = []
    for fold in range(FOLDS):
        held = order[fold::FOLDS].tolist()
        seen = rows.part(sorted(set(range(len(rows.runs))) - set(held)))
        fit = step_time.fit_steps(seen.runs, seen.seconds, rates())
        unseen = rows.part(held)
        errors += np.log(step_time.step_seconds(fit, unseen.runs, rates()).total / unseen.seconds).tolist()
    elsewhere: list[float] = []
    for shape in sorted({run.shape for run in rows.runs}, key=dataclasses.astuple):
        places = range(len(rows.runs))
        seen, unseen = (
            rows.part([place for place in places if (rows.runs[place].shape == shape) is of_it])
            for of_it in (False, True)
        )
        fit = step_time.fit_steps(seen.runs, seen.seconds, rates())
        elsewhere += np.log(step_time.step_seconds(fit, unseen.runs, rates()).total / unseen.seconds).tolist()
    found = step_time.fit_steps(rows.runs, rows.seconds, rates())
    models = [run.model for run in rows.runs]
    return [
        "[step_time]",
        f'device = "{published.CARD}"',
        f'source = "vTrain, {len(rows.runs)} steps on 2 to 8 A100 of one node"',
        f"factor95 = {factor95(errors):.4f}",
        f"elsewhere_factor95 = {factor95(elsewhere):.4f}",
        f"devices = {_bounds([run.layout.devices for run in rows.runs])}",
        f"width = {_bounds([model.width for model in models])}",
        f"layers = {_bounds([model.layers for model in models])}",
        f"sequence = {_bounds([model.sequence for model in models])}",
        f"micro_batch = {_bounds([run.layout.micro_batch for run in rows.runs])}",
        f"tensor = {_bounds([run.layout.tensor for run in rows.runs])}",
        f"pipeline = {_bounds([run.layout.pipeline for run in rows.runs])}",
        f"parameters = {_numbers(found.parameters)}",
        f"shapes = [{', '.join(_shape(shape, weight) for shape, weight in found.shapes.weights.items())}]",
        "",
    ]


def _shape(shape: Shape, weight: float) -> str:
    """Tensor-parallel devices, tokens, width, and how strongly what was measured of it pulls."""
    return f"[{shape.tensor}, {shape.tokens}, {shape.width}, {weight:.5f}]"


def _scaling(tested: Mapping[str, Any]) -> list[str]:
    pairs = published.pairs()
    found = sharded_scaling.fit_scaling([pair for _, _, pair in pairs])
    text = [
        "[sharded_scaling]",
        f'source = "llm-foundry, {len(pairs)} counts beside the smallest of their series"',
        f"factor95 = {tested['factor95']:.4f}",
        f"billion_parameters = {_bounds([round(pair[2].parameters / 1e9, 3) for _, _, pair in pairs])}",
        f"parameters = {_numbers(found)}",
    ]
    for card, name in published.CARDS.items():
        counts = [count for _, own, pair in pairs if own == card for count in (pair[0].devices, pair[2].devices)]
        text.append(f"devices.{name} = {_bounds(counts)}")
    return [*text, ""]


def _rate(card: str, tested: Mapping[str, Any]) -> list[str]:
    rows = [row for row in published.llm_foundry() if row.card == card and "fp8" not in row.precision]
    name = published.CARDS[card]
    trained = [row.trained for row in rows]
    found = training_rate.fit_rate(trained, [row.samples_per_second for row in rows], rates(name).flops)
    return [
        f"[training_rate.{name}]",
        f'source = "llm-foundry, {len(rows)} rows in bf16"',
        f"factor95 = {tested['factor95']:.4f}",
        f"devices = {_bounds([one.devices for one in trained])}",
        f"width = {_bounds([one.model.width for one in trained])}",
        f"sequence = {_bounds([one.model.sequence for one in trained])}",
        f"tokens = {_bounds([one.micro_batch * one.model.sequence for one in trained])}",
        f"parameters = {_numbers(found)}",
        "",
    ]


def _operators(tested: Mapping[str, Any]) -> list[str]:
    measured = [one for one in one_card.measurements() if one.network != one_card.PRODUCT]
    larger = tested["larger"]
    return [
        "[operators.gpu]",
        f'device = "{one_card.CARD}"',
        f'source = "{len(measured)} calls and steps of four networks in eager PyTorch, this project, 2026-11-26"',
        f"factor95 = {tested['factor95']:.4f}",
        *(f"{name} = {_bounds([0, round(most, 1)])}" for name, most in one_card.bounds_of(measured).items()),
        f"beyond = {{ reach = {REACH}, exponent = {larger['exponent']:.4f} }}",
        f"parameters = {_numbers(one_card.fit(list(one_card.measurements())))}",
        "",
    ]


def _pods(tested: Mapping[str, Any]) -> list[str]:
    rows = published.maxtext()
    law = pod_rate.fit_pods([row.pod for row in rows], [row.share for row in rows])
    text = [
        "[pod_rate]",
        f'source = "MaxText, {len(rows)} trainings on {", ".join(law.own)}"',
        f"factor95 = {tested['unseen models']['factor95']:.4f}",
        f"elsewhere_factor95 = {tested['unseen generations']['factor95']:.4f}",
        f"billion_weights = {_bounds([row.pod.parameters / 1e9 for row in rows])}",
        f"sequence = {_bounds([published.MAXTEXT_SEQUENCE])}",
        f"samples_a_chip = {_bounds(published.MAXTEXT_SAMPLES)}",
        f"parameters = {_numbers([law.slices, law.weights])}",
    ]
    for name, own in law.own.items():
        mine = [row for row in rows if row.pod.device == name]
        text.append(f"own.{name} = {own:.5f}")
        text.append(f"chips.{name} = {_bounds([row.chips for row in mine])}")
        text.append(f"slice.{name} = {max(row.slice_chips for row in mine)}")
    return [*text, ""]


def _processes(tested: Mapping[str, Any], larger: Mapping[str, Any]) -> list[str]:
    law, wires = processes.carried()
    document = processes.measured()
    steps, sessions = len(document["facts"]), len(document["sessions"])
    widest = max(larger["factor95"], larger["far_factor95"])
    return [
        "[processes]",
        f'source = "{steps} steps of two processes with one thread each, {sessions} sessions, this project"',
        f"factor95 = {tested['factor95']:.4f}",
        f"latency_seconds = {latency_of(wires):.9f}",
        *(f"{name} = {_bounds(values)}" for name, values in processes.bounds().items()),
        f"beyond = {{ reach = {REACH}, factor = {widest / tested['factor95']:.4f} }}",
        f"parameters = {_numbers(law.parameters)}",
        "",
    ]


def _bounds(values: Sequence[float]) -> str:
    return f"[{min(values)}, {max(values)}]"


def _numbers(values: Sequence[float]) -> str:
    return f"[{', '.join(f'{value:.5f}' for value in values)}]"
