"""Where a step's time goes, of the original and of plans that feed it otherwise, split it, or make one piece of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from vivace.core.errors import UsageError
from vivace.core.facts import Fact
from vivace.core.plan import Plan
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.training.job import Training
from vivace.core.training.rig import Rig
from vivace.report.training import advice_words
from vivace.search.training.diagnosis import Diagnoser, diagnosis_of
from vivace.techniques.memory.gradient_accumulation import GradientAccumulation
from vivace.testing.tiny_training import Points, job
from vivace.training.step import accumulate

PHASES = ("forward_seconds", "backward_seconds", "update_seconds")
WALKED: list[int] = []


class Rigged(Technique):
    """What the made-up techniques share."""

    stage = Stage.FEED
    family = Family.SYSTEM
    effect = Effect.EXACT
    needs = frozenset({Fact.TRAINING})
    source = "none"


class SparseTable(torch.nn.Module):
    """Its gradients are sparse, which no fused kernel takes."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(4, 4, sparse=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.table((x[:, 0] > 0).long())
        return found


def test_a_technique_that_fails_in_passing_leaves_the_diagnosis_of_the_original() -> None:
    work = job(model=SparseTable, optimizer=lambda parameters: torch.optim.SGD(parameters, 0.1))

    read = Diagnoser(work, Plan()).read(3)

    assert "fused-optimizer" not in {one["technique"] for one in read["what_ifs"]}
    assert read["steps"] == 3


class WatchedFeed:
    """Tells which epochs were begun."""

    def __init__(self, feed: Any) -> None:
        self.feed = feed

    def epoch(self, number: int, skip: int = 0) -> Iterator[Any]:
        WALKED.append(number)
        return self.feed.epoch(number, skip)  # type: ignore[no-any-return]

    def steps(self) -> int | None:
        return self.feed.steps()  # type: ignore[no-any-return]


@dataclasses.dataclass(frozen=True)
class Watched(Rigged):
    """A feed whose epochs are counted."""

    def equip(self, rig: Rig, job: Training) -> Rig:
        return rig.replace(feed=WatchedFeed(rig.feed))


@dataclasses.dataclass(frozen=True)
class OnePiece(Rigged):
    """Forward and backward as one piece, as a compiler makes them."""

    def equip(self, rig: Rig, job: Training) -> Rig:
        def gradients(batch: object) -> torch.Tensor:
            rig.optimizer.zero_grad()
            return accumulate(rig, batch)

        return rig.replace(gradients=gradients)


def test_the_phases_of_the_original_are_all_there_with_its_operations_and_its_evaluation() -> None:
    found = Diagnoser(job(), Plan()).read(4)
    assert all(found[name] > 0 for name in PHASES)
    assert found["whole_seconds"] == 0
    assert found["flops"] > 1000
    assert found["evaluate_seconds"] > 0


def test_what_a_plan_leaves_as_it_is_is_not_looked_at_again() -> None:
    found = Diagnoser(job(), Plan((Watched(),))).read(2, flops=123.0)
    assert (found["flops"], found["evaluate_seconds"]) == (123.0, None)


def test_the_steps_of_a_plan_are_timed_after_its_first_epoch_in_which_caches_are_filled() -> None:
    WALKED.clear()
    Diagnoser(job(), Plan((Watched(),))).read(2, flops=1.0)
    assert WALKED == [0, 1, 2]


def test_a_batch_in_parts_keeps_less_for_the_backward_pass_and_its_parts_are_added_up() -> None:
    whole = Diagnoser(job(), Plan()).read(2)
    parts = Diagnoser(job(), Plan((GradientAccumulation(parts=4),))).read(2, flops=1.0)
    assert parts["activation_bytes"] < whole["activation_bytes"] / 2
    assert all(parts[name] > 0 for name in PHASES)


def test_what_is_one_piece_is_not_split() -> None:
    read = Diagnoser(job(), Plan((OnePiece(),))).read(2, flops=1e6)
    found = diagnosis_of(read, ceiling_gflops=100.0)
    assert (read["forward_seconds"], read["backward_seconds"]) == (0.0, 0.0)
    assert found.whole_seconds > 0 and found.update_seconds > 0
    assert found.step_seconds == pytest.approx(found.whole_seconds + found.update_seconds + found.input_seconds)
    assert found.floor_seconds == pytest.approx(1e-5)
    assert found.share_of_ceiling == pytest.approx(1e-5 / found.step_seconds)


def test_a_job_whose_own_step_fails_is_told_as_such() -> None:
    given = job(model=lambda: torch.nn.Linear(13, 4))

    with pytest.raises(UsageError, match=r"own first step fails, as it was given: RuntimeError: mat1 and mat2"):
        Diagnoser(given, Plan()).read(3)


def test_advice_that_was_measured_has_an_interval_and_what_may_be_noise_is_not_given() -> None:
    read = {
        "input_seconds": 1e-3, "forward_seconds": 4e-3, "backward_seconds": 4e-3, "update_seconds": 1e-3, "steps": 20,
        "overhead_share": 0.5, "flops": 1e6, "threads": 1, "evaluate_seconds": None, "notes": [], "parameter_bytes": 0,
        "gradient_bytes": 0, "optimizer_bytes": 0, "activation_bytes": 0, "cache": "sample-cache", "what_ifs": [
            {"technique": "noisy", "given": [9e-3, 9e-2, 9e-3], "seconds": [9e-3, 9e-3, 8e-3]},
            {"technique": "less", "given": [9e-3, 9e-3, 9e-3], "seconds": [7e-3, 7.1e-3, 7e-3]},
            {"technique": "more", "given": [9e-3, 9.1e-3, 9e-3], "seconds": [5e-3, 5e-3, 5e-3]},
        ],
    }  # fmt: skip

    found = diagnosis_of(read, None).advice

    assert [one.technique for one in found] == ["more", "less", "compiled-training", "sample-cache"]
    assert found[0].interval is not None and 1.6 < found[0].interval.low < found[0].gain < found[0].interval.high
    assert [one.interval for one in found[2:]] == [None, None]
    assert advice_words(found[1]).startswith("the same step with less: 1.24 times as fast, MEASURED (95% interval 1.2")
    assert advice_words(found[2]).endswith("at most 1.82 times as fast, PREDICTED (a bound)")


def test_what_is_kept_of_a_batch_that_is_a_view_is_that_batch_alone() -> None:
    points, labels = torch.randn(2048, 12), torch.randint(4, (2048,))
    cut = [(points[place : place + 16], labels[place : place + 16]) for place in range(0, 2048, 16)]
    own = [(one.clone(), other.clone()) for one, other in cut]

    kept = [Diagnoser(job(data=data, batch_size=None), Plan()).read(3)["activation_bytes"] for data in (cut, own)]

    assert kept[0] == kept[1] < points.numel() * 4


@pytest.mark.parametrize("steps", [3, 4])
def test_operations_are_those_of_a_whole_batch_and_not_of_the_last_smaller_one(steps: int) -> None:
    work = job(model=lambda: torch.nn.Linear(12, 4), data=Points(24), batch_size=16, evaluate=None)

    assert Diagnoser(work, Plan()).read(steps)["flops"] == 2 * 2 * 16 * 12 * 4
