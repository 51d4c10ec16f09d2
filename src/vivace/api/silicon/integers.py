"""A workload in integers: captured, calibrated with its own data, and judged against the original first."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vivace.core.errors import EnvironmentFault, UnsupportedModel
from vivace.core.program import Form
from vivace.core.quality import Budget, Gate, Quality
from vivace.core.technique import Effect
from vivace.core.workload import Workload
from vivace.data import samples
from vivace.hardware.graph import again, golden
from vivace.hardware.graph.integer import IntegerGraph
from vivace.hardware.graph.quantize import Precision, quantize
from vivace.hardware.graph.reading import read
from vivace.runtimes import eager, store
from vivace.search.evaluation import Evaluation
from vivace.search.judge import Rules, judge_decisions
from vivace.search.prepare import Prepared, prepare

CHECKED_SAMPLES = 256
"""On which PyTorch computes the integers again, and must agree bit for bit."""


@dataclasses.dataclass(frozen=True, eq=False)
class Integers:
    """The integer graph, the verdict on it, real input samples [samples, *shape], and notes for the report."""

    graph: IntegerGraph
    quality: Quality
    samples: np.ndarray[Any, Any]
    notes: tuple[str, ...]


def integers_of(
    work: Workload, folder: Path, precision: Precision, budget: Budget, gate: Gate, seconds: float
) -> Integers:
    """Quantize a workload and judge it on all its data but what calibrated it.

    Raises UnsupportedModel and UsageError, as `prepare`, `read` and `quantize` do; EnvironmentFault where the golden
    model and PyTorch disagree on the same integers.
    """
    prepared = prepare(work, folder / "work", seconds=seconds)
    model = store.read_model(prepared.program)
    if model.form is not Form.TORCH:
        raise UnsupportedModel(
            f"{work.name} is a model of form {model.form.value}; hardware is made of PyTorch modules and .pt2 files"
        )
    network = read(model.program, work.name)
    calibration = _calibration(prepared)
    graph = quantize(network, calibration, precision)
    judged = _judged(prepared)
    calls = samples.read(judged.calls)
    answer = prepared.work.signature.answer
    function = eager.flat_function(model.program)
    original = [list(function(*leaves)) for leaves in calls]
    samples.write_outputs(judged.reference, original, answer)
    outputs = [[_answer(graph, leaves[0], plain[0])] for leaves, plain in zip(calls, original, strict=True)]
    written = samples.write_outputs(judged.reference.with_name("integers.safetensors"), outputs, answer)
    rules = Rules(budget, gate, None if gate is Gate.FIDELITY else work.metric)
    quality = judge_decisions(judged, samples.read_outputs(written), Effect.CHANGED, rules)
    rows = [_rows(graph, leaves[0]) for leaves in calls] + [_rows(graph, leaf) for leaf in calibration]
    real = np.concatenate(rows)
    compared = real[:CHECKED_SAMPLES]
    _check_again(graph, compared)
    told = f"PyTorch computes the golden model's integers, bit for bit, on {len(compared)} samples"
    return Integers(graph, quality, real, (*prepared.notes, told))


def _calibration(prepared: Prepared) -> list[Tensor]:
    folder = prepared.work.calibration or prepared.work.example
    assert folder is not None
    return [leaves[0] for leaves in samples.read(folder)]


def _judged(prepared: Prepared) -> Evaluation:
    """The parts that a search selects and confirms with, as one: there is one candidate, so nothing is selected."""
    parts = (prepared.select, prepared.confirm)
    stored = [samples.read(part.calls) for part in parts]
    calls = [leaves for one in stored for leaves in one]
    folder = prepared.work.folder / "judged"
    samples.write(folder, calls, stored[0].call, stored[0].positional)
    return Evaluation(
        "judged",
        folder,
        [target for part in parts for target in part.targets],
        [size for part in parts for size in part.sizes],
        prepared.work.folder / "judged-original.safetensors",
        prepared.confirm.axes,
    )


def _rows(graph: IntegerGraph, leaf: Tensor) -> np.ndarray[Any, Any]:
    return leaf.detach().double().reshape(-1, *graph.input.shape).numpy()


def _answer(graph: IntegerGraph, leaf: Tensor, plain: Tensor) -> Tensor:
    found = torch.from_numpy(golden.answers(graph, _rows(graph, leaf)))
    return found.reshape(plain.shape).to(plain.dtype)


def _check_again(graph: IntegerGraph, real: np.ndarray[Any, Any]) -> None:
    inputs = graph.quantize(real)
    different = again.first_difference(graph, inputs, golden.run(graph, inputs))
    if different is not None:
        raise EnvironmentFault(
            f"the golden model and PyTorch disagree on the same integers, first in sample {different[0]}, output "
            f"element {different[1]}; this is a defect of Vivace, and nothing is built from it"
        )
