"""Several copies of a program answer the parts of a batch, and together what one would."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vivace.core.errors import ArtifactError
from vivace.core.program import Model
from vivace.runtimes import instances, store
from vivace.runtimes.capture import capture
from vivace.runtimes.program import Program


class Pair(nn.Module):
    """Two inputs, one of them the same for every sample; two outputs, the second with its batch in the second axis."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, rows: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        answer = self.layer(rows) * weights
        return answer, answer.t().contiguous()


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    example = (torch.randn(4, 4), torch.randn(3))
    return capture(Pair().eval(), example, varying=[frozenset({0}), frozenset()]).model


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_every_batch_gets_the_answers_of_one_copy(model: Model, tmp_path: Path, size: int) -> None:
    store.save(model, tmp_path / "one")
    store.save(model.replace(settings=model.settings.replace(instances=3, threads=1)), tmp_path / "three")
    one, three = store.load(tmp_path / "one"), store.load(tmp_path / "three")
    rows, weights = torch.randn(size, 4), torch.randn(3)

    torch.testing.assert_close(three(rows, weights), one(rows, weights))
    three.close()


def test_the_copies_work_at_the_same_time(model: Model) -> None:
    together = threading.Barrier(2, timeout=20)

    def open_one(given: Model) -> Program:
        return Program(given.signature, given.settings, lambda leaves: meet(leaves))

    def meet(leaves: list[Tensor]) -> list[Tensor]:
        together.wait()
        return [leaves[0][:, :3], leaves[0][:, :3].t()]

    program = instances.load(open_one, model.replace(settings=model.settings.replace(instances=2)))

    assert program(torch.ones(4, 4), torch.ones(3))[0].shape == (4, 3)
    program.close()


def test_a_failure_in_any_copy_is_raised(model: Model) -> None:
    opened: list[Program] = []

    def fail(leaves: list[Tensor]) -> list[Tensor]:
        raise RuntimeError("planted")

    def open_one(given: Model) -> Program:
        run = fail if opened else (lambda leaves: [leaves[0][:, :3], leaves[0][:, :3].t()])
        opened.append(Program(given.signature, given.settings, run))
        return opened[-1]

    program = instances.load(open_one, model.replace(settings=model.settings.replace(instances=2)))

    with pytest.raises(RuntimeError, match="planted"):
        program(torch.ones(4, 4), torch.ones(3))
    program.close()


@pytest.mark.parametrize("count", [0, -1, 300, 10_000])
def test_an_impossible_count_is_refused(model: Model, tmp_path: Path, count: int) -> None:
    store.save(model.replace(settings=model.settings.replace(instances=count)), tmp_path / "p")
    with pytest.raises(ArtifactError, match=f"asks for {count} instances; allowed are|allowed are 2 to 256"):
        store.load(tmp_path / "p")


def test_a_model_of_fixed_shapes_cannot_be_split(tmp_path: Path) -> None:
    fixed = capture(nn.Linear(4, 3).eval(), (torch.randn(4, 4),), varying=[frozenset()], fixed_shapes=True).model
    store.save(fixed.replace(settings=fixed.settings.replace(instances=2)), tmp_path / "p")
    with pytest.raises(ArtifactError, match="cannot be split by samples"):
        store.load(tmp_path / "p")
