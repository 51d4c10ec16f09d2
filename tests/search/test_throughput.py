"""The batch of a throughput: the smallest at which the original is about as quick a sample as it gets."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import vivace as vv
from vivace.data import samples
from vivace.search import throughput
from vivace.search.prepare import prepare


def paced(seconds_of: dict[int, float]) -> tuple[dict[int, float], list[int]]:
    """What is found of a model whose call takes so many seconds by batch, and the batches that were tried."""
    tried: list[int] = []

    def pace(leaves: list[Tensor]) -> float:
        tried.append(leaves[0].shape[0])
        return seconds_of[leaves[0].shape[0]]

    return throughput.paces([torch.zeros(2, 3)], [0], 2, pace), tried


def test_doubling_goes_on_while_it_helps() -> None:
    found, tried = paced({2: 0.1, 4: 0.1, 8: 0.12, 16: 0.24, 32: 0.48})

    assert tried == [2, 4, 8, 16, 32]
    assert throughput.best_batch(found) == 8


def test_doubling_ends_with_calls_that_take_long() -> None:
    found, tried = paced({2: 0.9, 4: 1.5})

    assert tried == [2, 4]
    assert throughput.best_batch(found) == 4


def test_an_example_grows_by_its_own_samples() -> None:
    rows, whole = torch.arange(6).reshape(2, 3), torch.ones(5)

    grown = throughput.grown([rows, whole], [0, None], 2, 5)

    assert grown[0].tolist() == [[0, 1, 2], [3, 4, 5], [0, 1, 2], [3, 4, 5], [0, 1, 2]]
    assert grown[1] is whole


@pytest.mark.parametrize("wanted", [False, True])
def test_only_a_throughput_is_measured_with_a_larger_batch(tmp_path: Path, wanted: bool) -> None:
    torch.manual_seed(0)
    data = [(torch.randn(1, 16), torch.zeros(1, dtype=torch.int64)) for _ in range(120)]
    work = vv.Workload(nn.Linear(16, 4).eval(), inputs=(data[0][0],), data=data, metric=vv.metrics.accuracy)

    prepared = prepare(work, tmp_path, throughput=wanted, seconds=60)

    timed = samples.read(prepared.race_calls)[0][0]
    assert timed.shape[0] == prepared.batch_size
    assert (prepared.batch_size > 1) is wanted
    assert any("samples a second by batch" in note for note in prepared.notes) is wanted
    plain = 2.0 * 16 * 4
    assert prepared.work.cost.flops == plain * prepared.batch_size
    assert prepared.confirm.samples > 20
