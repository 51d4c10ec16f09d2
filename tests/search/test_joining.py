"""An original that does not care answers several calls at once for judging; one that does is asked as users ask it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import vivace as vv
from vivace.api.request import options_of
from vivace.data import samples
from vivace.search.calls.joining import Joining, joining_of
from vivace.search.laboratory import Laboratory
from vivace.search.prepare import prepare


class PerSample(nn.Module):
    """Many small operators: a call takes as long for one sample as for sixteen."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(20))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x).tanh() + x
        return x


class Neighbourly(PerSample):
    """Each answer takes the mean over its neighbours away."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) - x.mean(0, keepdim=True)


def workload(kind: type[nn.Module], count: int = 200) -> vv.Workload:
    torch.manual_seed(0)
    data = [(torch.randn(1, 8), torch.zeros(1)) for _ in range(count)]

    def metric(output: Tensor, target: Tensor) -> Tensor:
        return (output[:, 0] > 0).float()

    return vv.Workload(kind().eval(), (data[0][0],), data, metric, "joined")


def test_the_answers_are_those_of_single_calls(tmp_path: Path) -> None:
    work = workload(PerSample)
    prepared = prepare(work, tmp_path)
    assert prepared.joining.count == 16

    with Laboratory(prepared, options_of(work), tmp_path) as laboratory:
        laboratory.learn_original()

    for part in (prepared.select, prepared.confirm):
        answers = part.original_outputs()
        assert len(answers) == len(part.sizes)
        for (leaves,), (answer,) in zip(samples.read(part.calls), answers, strict=True):
            with torch.no_grad():
                torch.testing.assert_close(answer, work.model(leaves))
    assert not list(tmp_path.glob("*-joined"))


def test_an_original_whose_answers_depend_on_neighbours_is_asked_one_by_one(tmp_path: Path) -> None:
    assert prepare(workload(Neighbourly), tmp_path).joining.count == 1


def test_calls_of_other_shapes_or_with_other_shared_inputs_are_not_joined() -> None:
    joining = Joining(16, (0, None), (0,))
    shared, other = torch.ones(3), torch.zeros(3)
    calls = [[torch.zeros(1, 3), shared], [torch.zeros(2, 3), shared], [torch.zeros(2, 3), other]]

    assert [leaves[0].shape[0] for leaves in joining.joined(calls)] == [1, 2, 2]
    assert [leaves[0].shape[0] for leaves in joining.joined([calls[0]] * 17)] == [16, 1]


@pytest.mark.parametrize(
    ("found", "count"),
    [
        ({"agrees": True, "alone_seconds": 1.0, "joined_seconds": 0.5}, 4),
        ({"agrees": True, "alone_seconds": 1.0, "joined_seconds": 0.9}, 1),
        ({"agrees": False, "alone_seconds": 1.0, "joined_seconds": 0.1}, 1),
    ],
    ids=["pays", "does not pay", "disagrees"],
)
def test_calls_are_joined_where_it_pays_and_changes_nothing(found: dict[str, Any], count: int) -> None:
    calls = [[torch.zeros(4, 3)] for _ in range(9)]

    joining, seconds = joining_of(calls, (0,), (0,), lambda alone, joined: found, 0.25)

    assert joining.count == count
    assert seconds == (0.125 if count > 1 else 0.25)


@pytest.mark.parametrize(("inputs", "outputs"), [((0,), (None,)), ((0,), ()), ((None,), (0,))])
def test_nothing_is_asked_where_answers_could_not_be_taken_apart(
    inputs: tuple[int | None, ...], outputs: tuple[int | None, ...]
) -> None:
    def ask(alone: object, joined: object) -> dict[str, Any]:
        raise AssertionError("asked")

    joining, _ = joining_of([[torch.zeros(1, 3)]] * 4, inputs, outputs, ask, 0.25)

    assert joining.count == 1


def test_a_joined_call_holds_as_many_samples_as_memory_allows() -> None:
    found = {"agrees": True, "alone_seconds": 1.0, "joined_seconds": 0.1}
    calls = [[torch.zeros(2, 3)] for _ in range(9)]

    counts = [joining_of(calls, (0,), (0,), lambda a, j: found, 0.25, most)[0].count for most in (16, 5, 3, 0)]

    assert counts == [8, 2, 1, 1]


def test_a_job_is_the_same_one_however_much_of_its_data_time_lets_be_judged(tmp_path: Path) -> None:
    work = workload(PerSample, 400)

    short, long = (prepare(work, tmp_path / str(seconds), seconds=seconds) for seconds in (1e-6, 300.0))

    assert short.confirm.samples < long.confirm.samples
    assert short.identity == long.identity
    assert prepare(workload(PerSample, 399), tmp_path / "other").identity != long.identity
