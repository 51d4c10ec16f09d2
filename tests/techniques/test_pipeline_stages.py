"""A graph cut into stages: which cut, the same answers in parts, and refused where it does not pay."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vivace.core.errors import ArtifactError, NotApplicable, UsageError
from vivace.core.program import Model
from vivace.core.work import Work
from vivace.data import samples
from vivace.devices import machine
from vivace.runtimes import store
from vivace.runtimes.capture import capture
from vivace.runtimes.graphs import counts
from vivace.runtimes.lanes.run import DEVICES, EACH, OPTION, PARTS
from vivace.techniques.parallel import pipeline_stages
from vivace.techniques.parallel.pipeline_stages import PipelineStages

X = torch.randn(16, 32)


class Residual(nn.Module):
    """Its input is used by the first and by the last stage."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(32, 512), nn.Linear(512, 32), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[N, 32] to [N, 4] and [N, 32]."""
        y = self.second(self.first(x).relu()) + x
        return self.last(y), y


@pytest.fixture
def job(tmp_path: Path) -> tuple[Model, Work]:
    torch.manual_seed(0)
    captured = capture(Residual().eval(), (X,), varying=[frozenset({0})]).model
    example = samples.write(tmp_path / "example", [[X]], captured.signature.call, 1)
    cost = counts.cost_of(captured, [X])
    return captured, Work("toy", captured.signature, frozenset(), cost, tmp_path, example=example)


def planted(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Operators that take this long each, for a whole batch with all threads."""

    def seconds_of(program: Any, leaves: Any, count: int, device: str = "cpu") -> list[float]:
        return [seconds * len(leaves[0]) / len(X)] * 5

    monkeypatch.setattr(pipeline_stages, "seconds_of", seconds_of)


def test_stages_in_parts_answer_as_the_original_does_also_batches_that_parts_do_not_divide(
    job: tuple[Model, Work], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted(monkeypatch, 0.01)
    model, work = job

    staged = PipelineStages(stages=2, parts=4).apply(model, work)

    assert (staged.settings.option(OPTION, ""), staged.settings.option(PARTS, 0)) == ("00011", 4)
    assert staged.settings.option(DEVICES, "") == ""
    store.save(model, tmp_path / "one")
    store.save(staged, tmp_path / "staged")
    one, pipeline = store.load(tmp_path / "one"), store.load(tmp_path / "staged")
    for size in (16, 7, 4, 3, 1):
        x = torch.randn(size, 32)
        for wanted, found in zip(one(x), pipeline(x), strict=True):
            assert found.shape == wanted.shape
            torch.testing.assert_close(found, wanted)
    pipeline.close()


def test_where_operators_are_over_before_a_thread_is_woken_nothing_is_cut(
    job: tuple[Model, Work], monkeypatch: pytest.MonkeyPatch
) -> None:
    planted(monkeypatch, 1e-6)

    with pytest.raises(NotApplicable, match=r"take 0\.005 ms one after the other, and would take"):
        PipelineStages().apply(*job)


def test_a_batch_with_fewer_samples_than_parts_is_refused(job: tuple[Model, Work]) -> None:
    with pytest.raises(NotApplicable, match="the example has 16 samples, which make no 32 parts"):
        PipelineStages(parts=32).apply(*job)


def test_without_a_card_for_each_stage_a_program_that_asks_for_them_is_refused(
    job: tuple[Model, Work], tmp_path: Path
) -> None:
    settings = job[0].settings.with_options(lanes="00011").with_options(**{DEVICES: EACH})
    store.save(job[0].replace(settings=settings), tmp_path / "cards")

    with pytest.raises(ArtifactError, match=r"asks for 2 CUDA devices, one for each stage; PyTorch sees \d"):
        store.load(tmp_path / "cards")


@pytest.mark.parametrize("name", ["stages", "parts"])
@pytest.mark.parametrize("value", [1, 1000, True, "2"])
def test_counts_that_cannot_be_are_refused(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"pipeline-stages received {name}="):
        PipelineStages(**{name: value})


def test_a_search_is_offered_twice_and_four_times_as_many_parts_as_stages(job: tuple[Model, Work]) -> None:
    here, work = machine.detect(), job[1]
    heavy, light = (dataclasses.replace(work, cost=work.cost.replace(flops=flops)) for flops in (1e9, 1e3))
    offered = list(PipelineStages.variants(heavy, here))

    stages = min(here.cores_allowed, 9)
    expected = [PipelineStages(stages, parts) for parts in (2 * stages, 4 * stages) if stages > 1 and parts <= 16]
    assert offered == expected
    assert list(PipelineStages.variants(light, here)) == []
