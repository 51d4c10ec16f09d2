"""Calls in several shapes: dealt by their weights, checked against each other, judged one shape at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vivace.core.errors import UnsupportedModel, UsageError
from vivace.core.signature import Signature, TensorSpec
from vivace.core.structure import Structure, flatten
from vivace.core.technique import Effect
from vivace.core.workload import Mix
from vivace.data import samples
from vivace.search.calls.mix import Examples, check_accepted, check_alike, dealt, interleaved, made, mixed
from vivace.search.judge import Group, Referee, refuse

SHORT, LONG = [torch.zeros(1, 4)], [torch.ones(1, 9)]
CALL = flatten({"x": SHORT[0]}, torch.is_tensor)[1]
EXAMPLES = Examples((SHORT, LONG), (0.7, 0.3), CALL, 1)


def pools(*sizes: int) -> list[list[list[Tensor]]]:
    """Sixteen calls of each shape, told apart by their values."""
    return [[[torch.full((size,), float(number))] for number in range(16)] for size in sizes]


@pytest.mark.parametrize(
    ("weights", "counts"),
    [([0.7, 0.3], [8, 4]), ([0.5, 0.25, 0.25], [6, 3, 3]), ([0.98, 0.01, 0.01], [10, 1, 1]), ([1.0, 0.0], [11, 1])],
)
def test_calls_are_dealt_by_the_largest_remainders_and_each_shape_gets_one(
    weights: list[float], counts: list[int]
) -> None:
    assert dealt(weights, 12) == counts


def test_shapes_are_spread_over_a_walk() -> None:
    assert interleaved([8, 4]) == [0, 1, 0] * 4
    assert interleaved([3, 1]) == [0, 0, 1, 0]


def test_timing_calls_are_in_proportion_distinct_and_the_same_every_time() -> None:
    calls, mix = mixed(pools(4, 9), [0.7, 0.3])

    assert mix == Mix((0, 1, 0) * 4 + (0, 1, 0, 0), (0.7, 0.3))
    assert [leaf.shape[0] for (leaf,) in calls] == [9 if shape else 4 for shape in mix.shapes]
    assert len({(leaf.shape[0], leaf[0].item()) for (leaf,) in calls}) == 16
    again, same = mixed(pools(4, 9), [0.7, 0.3])
    assert same == mix and all(torch.equal(a, b) for (a,), (b,) in zip(calls, again, strict=True))


def test_every_shape_of_many_is_among_the_calls_that_are_walked() -> None:
    count = 23
    calls, mix = mixed(pools(*range(1, count + 1)), [1 / count] * count)

    assert mix is not None and len(calls) == 24 + 4
    assert set(mix.shapes[:24]) == set(range(count))


def test_one_shape_is_no_mix() -> None:
    calls, mix = mixed(pools(4), [1.0])

    assert (len(calls), mix) == (16, None)


def test_calls_made_from_examples_hold_every_shape_in_every_part() -> None:
    parts = made(EXAMPLES, 16)

    assert [{leaf.shape[1] for (leaf,) in part} for part in parts] == [{4, 9}] * 3
    assert torch.equal(parts[1][0][0], SHORT[0])
    everything = [(leaf.shape[1], tuple(leaf.flatten().tolist())) for part in parts for (leaf,) in part]
    assert len(set(everything)) == len(everything)


def test_the_example_is_of_the_most_frequent_shape_and_what_differs_may_vary() -> None:
    assert EXAMPLES.main is SHORT
    assert EXAMPLES.varying == [frozenset({1})]
    assert EXAMPLES.name(1) == "x[1, 9]"


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (torch.zeros(1, 9, 1), r"entry 1 of mix has x of shape \[1, 9, 1\]; entry 0 has \[1, 4\]"),
        (torch.zeros(1, 9).double(), "entry 1 of mix has x of dtype float64; entry 0 has float32"),
        (torch.zeros(1, 4), "entries 0 and 1 of mix have the same shapes"),
    ],
)
def test_examples_that_differ_in_more_than_shape_or_not_at_all_are_refused(other: Tensor, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_alike([(SHORT, CALL, 1), ([other], CALL, 1)])


def test_examples_with_other_arguments_are_refused() -> None:
    by_name = flatten({"y": SHORT[0]}, torch.is_tensor)[1]

    with pytest.raises(UsageError, match="entry 1 of mix has other arguments or constants than entry 0"):
        check_alike([(SHORT, CALL, 1), (LONG, by_name, 1)])


def test_a_shape_that_the_program_does_not_take_is_named_with_what_was_lost() -> None:
    spec = TensorSpec("x", "float32", (None, 4), 0)
    signature = Signature(CALL, 1, (spec,), Structure("tensor"), (spec,))

    with pytest.raises(UnsupportedModel, match=r"does not take x\[1, 9\], .* allowed is \[any, 4\] \(fixed\)"):
        check_accepted(EXAMPLES, signature, "fixed")


def referee(folder: Path, exact: bool = True) -> Referee:
    """Two calls of each of two shapes; the original is right to rounding."""
    truth = [torch.linspace(-1, 1, size).double()[None] for size in (4, 4, 9, 9)]
    write(folder / "exact", truth)
    write(folder / "original", [leaf.float() for leaf in truth])
    groups = (Group("x[1, 4]", 2), Group("x[1, 9]", 2))
    return Referee(folder, folder / "original", folder / "exact" if exact else None, (0,), groups)


def write(path: Path, answers: Sequence[Tensor]) -> Path:
    return samples.write_outputs(path, [[leaf] for leaf in answers], Structure("tensor"))


def answers(folder: Path, *factors: float) -> samples.StoredOutputs:
    """The original's answers, each times a factor."""
    plain = samples.read_outputs(folder / "original")
    changed = [leaves[0] * factor for leaves, factor in zip(plain, factors, strict=True)]
    return samples.read_outputs(write(folder / "found", changed))


@pytest.mark.parametrize("exact", [True, False])
def test_a_plan_that_is_wrong_in_one_shape_is_refused_with_that_shape(tmp_path: Path, exact: bool) -> None:
    judged = referee(tmp_path, exact)

    assert refuse(judged, answers(tmp_path, 1, 1, 1, 1), Effect.ROUNDED) is None
    told = refuse(judged, answers(tmp_path, 1, 1, 1, 1.01), Effect.ROUNDED)
    assert told is not None and told.startswith("for x[1, 9]: ")


def test_a_plan_that_changes_answers_must_not_be_far_worse_in_one_shape(tmp_path: Path) -> None:
    judged = referee(tmp_path)

    assert refuse(judged, answers(tmp_path, 1.2, 1.2, 1.3, 1.3), Effect.CHANGED) is None
    told = refuse(judged, answers(tmp_path, 1, 1, 1.3, 1.3), Effect.CHANGED)
    assert told == "for x[1, 9]: SQNR 10.5 dB against the original's answers, where x[1, 4] has inf dB"


def test_a_wrong_shape_of_an_answer_is_told_with_the_shape_of_the_call(tmp_path: Path) -> None:
    judged = referee(tmp_path)
    plain = [leaves[0] for leaves in samples.read_outputs(judged.original)]
    found = samples.read_outputs(write(tmp_path / "found", [*plain[:3], plain[3][:, :2]]))

    told = refuse(judged, found, Effect.CHANGED)

    assert told == "for x[1, 9]: call 1: output 0 has shape [1, 2]; the original's is [1, 9]"
