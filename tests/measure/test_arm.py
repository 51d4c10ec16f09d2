"""The arm: a program used as its user would, timed, asked for outputs, and unmasked when it only remembers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from vivace.core.errors import UsageError
from vivace.data import samples
from vivace.measure.arm import Arm, open_arm


def opened(calls: Path, program: str, payload: Any = None, **arguments: Any) -> Arm:
    return open_arm({"program": f"programs:{program}", "arguments": arguments, "calls": str(calls)}, payload)


def test_eight_inputs_are_walked_and_the_rest_held_out(calls: Path) -> None:
    assert opened(calls, "multiply").opened["calls"] == 8
    assert opened(calls, "multiply").opened["held_out"] == 4


def test_calls_are_made_as_the_user_makes_them(calls: Path) -> None:
    seen: list[Any] = []
    opened(calls, "given", lambda *args, **kwargs: seen.append((len(args), kwargs))).first_call()
    assert seen == [(1, {})]


def test_both_arms_walk_the_same_inputs_in_the_same_order(calls: Path) -> None:
    walked: list[float] = []
    arm = opened(calls, "given", lambda x: walked.append(x[0, 0].item()))
    arm.time(6, 4, settle=False)
    first = [samples.read(calls)[i][0][0, 0].item() for i in (6, 7, 0, 1)]
    assert walked == first


def test_a_settling_call_is_made_and_not_counted(calls: Path) -> None:
    made: list[int] = []
    arm = opened(calls, "given", lambda x: made.append(1))
    assert len(arm.time(0, 3, settle=True)) == 3
    assert len(made) == 4


def test_calls_that_a_program_makes_in_one_go_are_timed_so(calls: Path) -> None:
    class Trainer:
        asked: ClassVar[list[int]] = []

        def __call__(self, x: Any) -> None:
            self.asked.append(-1)

        def many(self, count: int) -> None:
            self.asked.append(count)

    arm = opened(calls, "given", Trainer())

    seconds = arm.time(0, 5)

    assert Trainer.asked == [1, 5]
    assert len(seconds) == 5 and len(set(seconds)) == 1


def test_times_are_seconds(calls: Path) -> None:
    seconds = opened(calls, "spin", seconds=0.01).time(0, 9)
    assert min(seconds) == pytest.approx(0.01, rel=0.2)


class Timed:
    """A program that makes and times its calls itself."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, *_: Any) -> None:
        raise AssertionError("it times itself")

    def timed(self, calls: int) -> list[float]:
        self.asked.append(calls)
        return [0.25] * calls


def test_a_program_that_times_itself_is_asked_for_a_number_of_calls(calls: Path) -> None:
    program = Timed()
    arm = opened(calls, "itself", program)
    assert arm.time(3, 5, settle=True) == [0.25] * 5
    assert program.asked == [1, 5]
    assert arm.warm(60.0, 10)["seconds_per_call"] == 0.25


def test_a_steady_program_warms_up(calls: Path) -> None:
    found = opened(calls, "spin", seconds=0.002).warm(20.0, 5000)
    assert found["steady"]
    assert found["seconds_per_call"] >= 0.002
    assert found["calls"] >= 40


def test_warming_stops_at_its_limit_and_says_unsteady(calls: Path) -> None:
    found = opened(calls, "spin", seconds=0.001).warm(60.0, 10)
    assert (found["calls"], found["steady"]) == (10, False)


def test_outputs_are_written_flat_with_their_structure(calls: Path, tmp_path: Path) -> None:
    arm = opened(calls, "nested")
    answer = arm.outputs(str(calls), str(tmp_path / "out.safetensors"), limit=3)
    stored = samples.read_outputs(tmp_path / "out.safetensors")
    assert (answer["calls"], answer["finite"], len(stored)) == (3, True, 3)
    assert torch.equal(list(stored.values())[2]["twice"], samples.read(calls)[2][0] * 2)
    assert next(stored.values())["name"] == "it"


def test_outputs_that_are_not_finite_are_reported(calls: Path, tmp_path: Path) -> None:
    arm = opened(calls, "nested", nan=True)
    assert arm.outputs(str(calls), str(tmp_path / "out.safetensors"))["finite"] is False


def test_a_program_that_repeats_itself_is_repeatable(calls: Path) -> None:
    assert opened(calls, "multiply").repeatable() == {"repeatable": True, "difference": 0.0}


def test_a_program_that_changes_its_answer_is_not_repeatable(calls: Path) -> None:
    found = opened(calls, "restless").repeatable()
    assert not found["repeatable"]
    assert 0 < found["difference"] < 1


def test_a_program_that_remembers_its_answers_is_unmasked(calls: Path) -> None:
    arm = opened(calls, "remembers")
    arm.warm(1.0, 100)
    assert arm.caching()["cached"] is True


def test_an_honest_program_is_not_called_a_cache(calls: Path) -> None:
    arm = opened(calls, "spin", seconds=0.002)
    arm.warm(1.0, 50)
    assert arm.caching()["cached"] is False


def test_memory_is_at_least_what_the_interpreter_holds(calls: Path) -> None:
    assert opened(calls, "multiply").memory()["peak_bytes"] > 50_000_000


def test_a_program_that_cannot_be_called_is_refused(calls: Path) -> None:
    with pytest.raises(UsageError, match="returned a int; allowed is something to call"):
        opened(calls, "uncallable")


@pytest.mark.gpu
def test_a_program_on_a_card_is_timed_until_the_card_has_finished(calls: Path) -> None:
    weight = torch.randn(4096, 4096, device="cuda")
    arguments = {"program": "programs:given", "arguments": {}, "calls": str(calls), "device": "cuda"}
    arm = open_arm(arguments, lambda x: weight @ weight @ weight @ weight)
    arm.first_call()
    assert np.median(arm.time(0, 10)) > 3 * 2 * 4096**3 / 2e15
