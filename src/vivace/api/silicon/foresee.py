"""`predict` for systolic arrays: a network's products on every chip and at every bandwidth, from shapes alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import nn

from vivace.core.errors import UnsupportedModel, UsageError
from vivace.core.workload import Workload
from vivace.hardware.array.area import KNOWN, array_gates
from vivace.hardware.array.chip import PREFIX, Chip, chip_of
from vivace.hardware.array.energy import MODEL
from vivace.hardware.array.layers import ArrayLayer
from vivace.hardware.array.memory import Board
from vivace.hardware.array.products import Products, products_of
from vivace.hardware.array.result import ArrayPrediction, ChipPrediction, rows_of
from vivace.hardware.array.sweep import squares, sweep
from vivace.runtimes import source
from vivace.runtimes.calls import flat_call
from vivace.runtimes.capture import capture
from vivace.runtimes.graphs import counts
from vivace.training.rig import samples_in

SHOWN_SWEEP = 4
"""Chips of a sweep that are told layer by layer where none was named: the fastest of the front."""


def predict_arrays(
    work: object, names: Sequence[str], board: Board, bandwidths: Sequence[float] = (), sweeping: bool = False
) -> ArrayPrediction:
    """What the products of a workload's example call take on arrays; see `vivace.predict`.

    Raises UsageError for a name or a bandwidth that cannot be read and for what is no Workload, UnsupportedModel for a
    model that cannot be captured or has no product.
    """
    if not isinstance(work, Workload):
        raise UsageError(
            f"work is a {type(work).__name__}; what an array takes is told of one call of a vivace.Workload(model, "
            "inputs=...)"
        )
    named = list(dict.fromkeys(chip_of(name) for name in names))
    widths = tuple(dataclasses.replace(board, bandwidth=width).bandwidth for width in bandwidths)
    board = dataclasses.replace(board, bandwidth=widths[0]) if widths else board
    counted, batch = _counted(work)
    compared = list(dict.fromkeys([*named, *(squares(KNOWN) if sweeping or not named else [])]))
    gemms = [layer.gemm for layer in counted.layers]
    points = sweep(gemms, board, KNOWN, compared, widths or ((board.bandwidth,) if named and not sweeping else ()))
    told = named or [chip_of(point.chip) for point in points if point.front and point.bandwidth == board.bandwidth]
    chips = [
        _on(counted.layers, chip, dataclasses.replace(board, bandwidth=width))
        for chip in told[: None if named else SHOWN_SWEEP]
        for width in dict.fromkeys(point.bandwidth for point in points)
    ]
    return ArrayPrediction(
        work.name, batch, board, tuple(chips), points, counted.beside, MODEL, tuple(_notes(counted, named))
    )


def is_for_arrays(names: Sequence[str], sweeping: bool) -> bool:
    """Whether a prediction is asked for arrays; UsageError where some names are arrays and others are not."""
    arrays = [name for name in names if name.lower().startswith(PREFIX.rstrip(":"))]
    others = [name for name in names if name not in arrays]
    if (arrays or sweeping) and others:
        raise UsageError(
            f"on (--on) has {', '.join(arrays) or 'a sweep of arrays'} and {', '.join(others)}; devices of the "
            "catalogue and arrays are predicted by different models: ask for them one after the other"
        )
    return bool(arrays) or sweeping


def _counted(work: Workload) -> tuple[Products, int]:
    """The products of a workload's example call, and its samples."""
    file = work.file
    if file is not None and file.suffix == ".onnx":
        raise UnsupportedModel(
            f"{work.name} is an ONNX file, whose products are not read one by one; give the PyTorch module, or a .pt2 "
            "or .keras file"
        )
    module = source.open_module(file) if file is not None else work.model
    assert isinstance(module, nn.Module)
    if not work.examples and file is None:
        raise UsageError("inputs is missing; give one example call, such as inputs=(x,), so that it can be counted")
    example = work.examples[0] if file is None or work.examples else source.example_inputs(file)
    with torch.no_grad():
        model = capture(module if file is not None else module.eval(), example, fixed_shapes=True).model
    return products_of(model.program, counts.VIEWS), int(samples_in(flat_call(module, example)[0]))


def _on(layers: Sequence[ArrayLayer], chip: Chip, board: Board) -> ChipPrediction:
    rows, energy = rows_of(layers, chip, board)
    cycles = sum(row.cycles + 1 for row in rows)
    gates = array_gates(chip, KNOWN[chip.dataflow, chip.sparse])
    return ChipPrediction(chip.name, board.bandwidth, cycles, cycles / board.hertz, energy, gates, rows)


def _notes(counted: Products, named: Sequence[Chip]) -> list[str]:
    told = ["8-bit operands are assumed; `vivace synthesize --chip asic:...` says whether the network's quality holds"]
    if any(chip.sparse for chip in named) and not any(layer.gemm.sparse for layer in counted.layers):
        told.append("no layer has 2:4 weights, so all run dense on an array that skips zeros: prune the network before")
    return told
