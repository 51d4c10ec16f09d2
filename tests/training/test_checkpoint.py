"""A training that is stopped anywhere goes on exactly: weights, optimizer, schedule, order, random numbers."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from vivace.core.errors import ArtifactError, UsageError
from vivace.core.training.job import Training
from vivace.testing.tiny_training import Points, adam, job
from vivace.training.checkpoint import whole_entries
from vivace.training.keeping import files
from vivace.training.loop import Loop
from vivace.training.rig import assemble


def shaken(batch: Any) -> Any:
    """Random changes by all three generators."""
    points, labels = batch
    noise = torch.randn(points.shape) * random.random() * float(np.random.rand())
    return points + 0.1 * noise, labels


def halving(optimizer: Any) -> Any:
    return torch.optim.lr_scheduler.StepLR(optimizer, 5, 0.5)


def loader() -> DataLoader[Any]:
    return DataLoader(Points(), batch_size=16, shuffle=True)


JOBS = {
    "samples": lambda: job(augment=shaken, schedule=halving, advance="step"),
    "loader": lambda: job(data=loader(), batch_size=None, augment=shaken, schedule=halving),
    "milestones": lambda: job(schedule=lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [1, 2], 0.1)),
    "momentum": lambda: job(optimizer=lambda p: torch.optim.SGD(p, 0.05, momentum=0.9)),
}


def run(loop: Loop, most: int = 10**9) -> list[float]:
    """Train to the end, or so many steps; the losses."""
    losses: list[float] = []
    while len(losses) < most:
        told = loop.advance(most - len(losses))
        losses += told.losses
        if told.is_over:
            break
    return losses


@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize("stopped_after", [3, 7, 12])
def test_a_training_that_was_stopped_goes_on_exactly(name: str, stopped_after: int, tmp_path: Path) -> None:
    work: Training = JOBS[name]()
    whole = Loop(work, assemble(work), tmp_path / "whole", "x")
    wanted = run(whole)

    first = Loop(work, assemble(work), tmp_path / "keep", "x")
    before = run(first, stopped_after)
    first.save()
    random.seed(99)
    torch.manual_seed(99)
    second = Loop(work, assemble(work), tmp_path / "keep", "x")
    position = second.resume()
    after = run(second)

    assert position.steps == stopped_after
    assert before + after == wanted
    for one, other in zip(whole.rig.model.parameters(), second.rig.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_only_the_newest_checkpoints_stay(tmp_path: Path) -> None:
    loop = Loop(job(), assemble(job()), tmp_path, "x")
    for _ in range(4):
        loop.advance(1)
        loop.save()

    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-000000003", "step-000000004"]


def test_a_checkpoint_that_could_not_be_written_leaves_the_one_before(tmp_path: Path, monkeypatch: Any) -> None:
    loop = Loop(job(), assemble(job()), tmp_path, "x")
    loop.advance(1)
    loop.save()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "save_file", full)
    loop.advance(1)
    with pytest.raises(OSError, match="No space"):
        loop.save()

    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001"]


@pytest.mark.parametrize("content", ["", "[]", '{"schema_version": 99}', '{"a": NaN}'])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, content: str) -> None:
    loop = Loop(job(), assemble(job()), tmp_path, "x")
    loop.advance(1)
    saved = loop.save()
    assert saved is not None
    (saved / files.NOTE).write_text(content)

    with pytest.raises(ArtifactError, match="cannot be read"):
        loop.resume()


def test_a_checkpoint_of_another_job_or_model_is_refused(tmp_path: Path) -> None:
    loop = Loop(job(), assemble(job()), tmp_path, "x")
    loop.advance(1)
    loop.save()

    with pytest.raises(ArtifactError, match="another job"):
        Loop(job(), assemble(job()), tmp_path, "y").resume()
    wider = job(model=lambda: torch.nn.Linear(12, 4))
    with pytest.raises(ArtifactError, match="does not fit"):
        Loop(wider, assemble(wider), tmp_path, "x").resume()


def test_a_loss_that_explodes_is_told_with_the_step(tmp_path: Path) -> None:
    wild = job(optimizer=lambda p: torch.optim.SGD(p, 1e30))
    with pytest.raises(UsageError, match="the loss is nan after step"):
        run(Loop(wild, assemble(wild), None, ""))


def test_every_sample_comes_once_an_epoch() -> None:
    rig = assemble(job())
    seen = torch.cat([labels for _, labels in rig.feed.epoch(0)])

    assert len(seen) == 103
    assert not torch.equal(seen, torch.cat([labels for _, labels in rig.feed.epoch(1)]))
    assert torch.equal(seen, torch.cat([labels for _, labels in assemble(job()).feed.epoch(0)]))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model": lambda: SHARED}, "returned before"),
        ({"model": lambda: 3}, "a torch.nn.Module"),
        ({"optimizer": lambda p: p}, "a torch.optim.Optimizer"),
        ({"optimizer": lambda p: adam(torch.nn.Linear(2, 2).parameters())}, "not the model's"),
        ({"data": iter([]), "batch_size": None}, "gave no batch"),
    ],
    ids=["same", "number", "parameters", "strangers", "empty"],
)
def test_parts_that_cannot_be_used_are_refused(changes: dict[str, Any], told: str) -> None:
    work = job(**changes)
    with pytest.raises(UsageError, match=told):
        for _ in range(2):
            run(Loop(work, assemble(work), None, ""))


SHARED = torch.nn.Linear(12, 4)


def test_an_iterator_of_batches_ends_for_good() -> None:
    work = job(data=iter(list(loader())), batch_size=None)
    with pytest.raises(UsageError, match="ends for good"):
        run(Loop(work, assemble(work), None, ""))


def test_data_that_end_before_their_length_are_told() -> None:
    class Short(Points):
        def __len__(self) -> int:
            return super().__len__() + 5

        def __getitem__(self, index: int) -> Any:
            if index >= 103:
                raise IndexError(index)
            return self.points[index], int(self.labels[index])

    work = job(data=Short())
    with pytest.raises(UsageError, match="say that they hold 108"):
        run(Loop(work, assemble(work), None, ""))


class LastStage:
    """A rank that trains the last layer alone; another tells what it knows of the first."""

    def trains(self, name: str) -> bool:
        return name.startswith("3.")

    def told_by_all(self, told: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"optimizer/0/count": 5}, told]

    def whole(self, tensors: dict[str, Any]) -> dict[str, Any]:
        return tensors


def test_what_no_tensor_holds_comes_from_the_stage_that_trains_it() -> None:
    rig = assemble(job()).replace(ranks=LastStage())

    found = whole_entries(rig, {0: {"count": 1}, 2: {"count": 7, "average": torch.ones(1)}})

    assert found == {"optimizer/0/count": 5, "optimizer/2/count": 7, "optimizer/2/average": torch.ones(1)}
