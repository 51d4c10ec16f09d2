"""What a trial in a forked worker says of where its program will be loaded: in an interpreter of its own."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

import vivace as vv
from vivace.api.request import options_of
from vivace.core.plan import Plan
from vivace.core.registry import techniques
from vivace.core.result import Trial, TrialStage
from vivace.measure.forking.client import READER
from vivace.measure.process import Worker
from vivace.search.laboratory import Laboratory
from vivace.search.prepare import prepare


def tried(names: list[str], folder: Path) -> Trial:
    """A plan of a tiny network, tried as a search tries it."""
    torch.manual_seed(0)
    work = vv.Workload(nn.Sequential(nn.Linear(8, 8), nn.ReLU()).eval(), inputs=(torch.randn(4, 8),), name="tiny")
    options, prepared = options_of(work, time="30s"), prepare(work, folder)
    with Laboratory(prepared, options, folder) as laboratory:
        laboratory.learn_original()
        return laboratory.attempt(Plan.of([techniques()[name]() for name in names]), TrialStage.SEARCH, 20)


def test_a_graph_is_loaded_with_the_reader_that_its_worker_had_imported_before(tmp_path: Path) -> None:
    with Worker(tmp_path / "fork", fresh=False) as forked:
        forked.ready()
        reader = forked.reader_seconds

    copies, plain, onnx = (
        tried([name], tmp_path / name) for name in ("instances", "inference-mode", "onnx-runtime")
    )  # fmt: skip

    assert reader > 0.1, READER
    assert copies.load_seconds > reader > max(plain.load_seconds, onnx.load_seconds)
