"""Calls padded to few shapes: only where answers stay the same, and cut back to what was asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import vivace as vv
from vivace.core.errors import ArtifactError, NotApplicable, UsageError
from vivace.core.measurement import Outcome
from vivace.core.plan import Plan
from vivace.core.program import Padding, Settings
from vivace.devices.machine import detect
from vivace.runtimes import eager, store
from vivace.runtimes.openvino_session import exact_shapes
from vivace.search.prepare import Prepared, prepare
from vivace.techniques.compile.inductor import Inductor
from vivace.techniques.compile.open_vino import OpenVino
from vivace.techniques.rewrite.buckets import Buckets, best_buckets, growth
from vivace.techniques.rewrite.indifference import MOST_TRIED, SHORTEST

LENGTHS = (6, 9, 16, 12, 20)
"""The most frequent first."""


class Masked(nn.Module):
    """The mean over the tokens that a mask shows, and every token; padding changes neither."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 8)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """[N, L, 4] and [N, L] of booleans to [N, 8] and [N, L, 8]."""
        tokens = torch.tanh(self.layer(x))
        shown = mask.unsqueeze(2).to(tokens.dtype)
        return (tokens * shown).sum(1) / shown.sum(1), tokens


class Mean(nn.Module):
    """The mean over all tokens, the padded ones too."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return torch.tanh(x).mean(1)


class Least(nn.Module):
    """The least over tokens of a layer without bias: of many tokens it is below zero, which padding is."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3, bias=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.layer(x).amin(1)


class Most(nn.Module):
    """The most over tokens, of which many are above what a token of zeros gives."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.layer(x).amax(1)


class Positive(nn.Module):
    """The most over tokens of what is never below zero."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return torch.relu(x).amax(1)


class Attending(nn.Module):
    """Tokens are weighed by a softmax that a finite number hides them from: what hides all of them hides none."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        weights = x.sum(2).masked_fill(~mask, -1e9).softmax(1)
        return (weights.unsqueeze(2) * x).sum(1)


class Thresholded(nn.Module):
    """Right for every length, but not where the numbers are below zero on the whole."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return torch.where(x[:, :1].mean() > 0, x.sum(1), x.mean(1))


class ThreeTokens(nn.Module):
    """The least over all tokens but the first two, so it takes no call of these alone."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return x[:, 2:].amin(1)


def call(length: int, rows: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(length)
    mask = torch.rand(rows, length, generator=generator) > 0.3
    mask[:, 0] = True
    return torch.randn(rows, length, 4, generator=generator), mask


def network(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return kind().eval()


def ready(folder: Path, model: nn.Module, calls: Sequence[Any]) -> Prepared:
    mix = [(one, len(calls) - number) for number, one in enumerate(calls)]
    return prepare(vv.Workload(model, mix=mix), folder)


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return ready(tmp_path_factory.mktemp("masked"), network(Masked), [call(length) for length in LENGTHS])


def test_a_masked_model_is_called_in_few_shapes_and_answers_as_before(masked: Prepared, tmp_path: Path) -> None:
    model = Buckets(count=2).apply(store.read_model(masked.program), masked.work)
    store.save(model, tmp_path / "program")

    program, original = store.load(tmp_path / "program"), network(Masked)

    assert [bucket[0] for bucket in program.settings.padding.buckets] == [(2, 9, 4), (2, 20, 4)]  # type: ignore[union-attr]
    for length in (*LENGTHS, 7, 31):  # one between buckets, and one that fits in none
        for got, want in zip(program(*call(length)), original(*call(length)), strict=True):
            torch.testing.assert_close(got, want)
    for rows in (1, 3):  # any number of rows, which the shapes of the mix all have two of
        torch.testing.assert_close(program(*call(7, rows))[1], original(*call(7, rows))[1])


def test_the_runtime_sees_nothing_but_buckets(masked: Prepared, tmp_path: Path) -> None:
    seen = []
    model = Buckets(count=1).apply(store.read_model(masked.program), masked.work)

    def opened(inner: Any) -> Any:
        program = store.eager.load(inner)
        program._run = lambda leaves: seen.append(tuple(leaves[0].shape)) or [leaves[0][:, 0], leaves[0]]
        return program

    program = store.padding.load(opened, model)
    answers = [program(*call(length))[1].shape[1] for length in LENGTHS]

    assert set(seen) == {(2, 20, 4)}
    assert answers == list(LENGTHS)


def test_a_model_that_is_not_indifferent_to_padding_is_refused_with_the_shapes(tmp_path: Path) -> None:
    prepared = ready(tmp_path, network(Mean), [call(length) for length in LENGTHS])

    with pytest.raises(NotApplicable, match=r"not indifferent to padding: calls of \[2, 6, 4\].* to \[2, 20, 4\]"):
        Buckets(count=1).apply(store.read_model(prepared.program), prepared.work)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (Least, r"calls of \[2, 1, 4\], \[2, 1\] padded"),
        (Most, r"calls of \[2, 1, 4\], \[2, 1\]"),
        (Attending, r"calls of \[2, 1, 4\], \[2, 1\] \(a mask that shows nothing\) padded"),
        (Thresholded, r"calls of \[2, \d+, 4\], \[2, \d+\] \(its numbers negated\) padded"),
        (ThreeTokens, r"calls of \[2, 3, 4\], \[2, 3\] padded"),
    ],
)
def test_a_model_that_padding_changes_in_other_calls_only_is_refused_with_what_told(
    kind: type[nn.Module], told: str, tmp_path: Path
) -> None:
    calls = [(leaf.abs() + 0.1 if kind is Thresholded else leaf, mask) for leaf, mask in map(call, (24, 30, 40))]
    prepared = ready(tmp_path, network(kind), calls)

    with pytest.raises(NotApplicable, match=told):
        Buckets(count=1).apply(store.read_model(prepared.program), prepared.work)


def test_the_most_of_what_is_never_below_zero_may_be_padded(tmp_path: Path) -> None:
    prepared = ready(tmp_path, network(Positive), [call(length) for length in LENGTHS])

    assert Buckets(count=1).apply(store.read_model(prepared.program), prepared.work).settings.padding is not None


def test_the_proof_takes_some_dozens_of_calls(masked: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    answered = []
    run = eager.run_flat
    monkeypatch.setattr(eager, "run_flat", lambda *call: answered.append(call) or run(*call))

    Buckets(count=2).apply(store.read_model(masked.program), masked.work)

    assert len(answered) <= 2 * (MOST_TRIED + len(LENGTHS)) + len(LENGTHS) + len(SHORTEST)


def test_rows_may_be_padded_without_any_mask(tmp_path: Path) -> None:
    calls = [torch.randn(rows, 4) for rows in (1, 3, 4)]
    prepared = ready(tmp_path, nn.Sequential(nn.Linear(4, 3), nn.Tanh()).eval(), calls)

    settings = Buckets(count=1).apply(store.read_model(prepared.program), prepared.work).settings

    assert settings.padding == Padding((((4, 4),),), axes=((0, 0),), cuts=((0, 0, 0, 0),))


def test_compilers_make_code_for_the_buckets(masked: Prepared) -> None:
    pytest.importorskip("openvino")
    model = Buckets(count=2).apply(store.read_model(masked.program), masked.work)

    assert model.program.example_inputs[0][0].shape == (2, 9, 4)  # where Inductor's exact code comes from
    converted = OpenVino().apply(model, masked.work)

    assert exact_shapes(converted.settings) == [((2, 9, 4), (2, 9)), ((2, 20, 4), (2, 20))]


def test_it_is_offered_for_more_shapes_than_buckets_and_with_a_compiler_only(masked: Prepared, tmp_path: Path) -> None:
    one = prepare(vv.Workload(network(Masked), inputs=call(6)), tmp_path)

    assert [str(setting) for setting in Buckets.variants(masked.work, detect())] == ["buckets"]
    assert list(Buckets.variants(one.work, detect())) == []
    with pytest.raises(NotApplicable, match="1 shapes"):
        Buckets().apply(store.read_model(one.program), one.work)
    assert "without a compiler" in str(Plan.of([Buckets()]).illegal(masked.work.facts))
    assert "needs a later" not in str(Plan.of([Buckets(), Inductor()]).illegal(masked.work.facts))


def test_shapes_of_which_none_holds_the_others_have_no_single_bucket() -> None:
    shapes = [((2, 8),), ((3, 4),), ((1, 4),)]

    assert best_buckets(shapes, 1) is None
    assert best_buckets(shapes, 2) == (((3, 4),), ((2, 8),))
    assert growth(shapes, best_buckets(shapes, 2) or ()) == pytest.approx((16 + 12 + 12) / (16 + 12 + 4))


class Pair(nn.Module):
    """Two inputs whose lengths have nothing to do with each other."""

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        return torch.tanh(left), torch.tanh(right)


def test_inputs_that_are_equally_long_in_the_mix_and_not_in_a_call_are_answered_as_before(tmp_path: Path) -> None:
    prepared = ready(tmp_path, Pair().eval(), [(torch.randn(2, n), torch.randn(2, n)) for n in (4, 6, 8)])
    model = Buckets(count=1).apply(store.read_model(prepared.program), prepared.work)
    assert model.signature.inputs[1].shape[1] is None, "lengths must be free for this to say something"

    program, calls = store.padding.load(store.eager.load, model), [(5, 7), (7, 5), (5, 5)]
    answers = [program(torch.ones(2, left), torch.ones(2, right)) for left, right in calls]

    assert [(left.shape[1], right.shape[1]) for left, right in answers] == calls


@pytest.mark.parametrize("count", [0, 33, True, 2.0])
def test_an_impossible_number_of_buckets_is_refused(count: Any) -> None:
    with pytest.raises(UsageError, match="a whole number from 1 to 32"):
        Buckets(count=count)


@pytest.mark.parametrize(
    "damaged",
    [
        {"buckets": [], "axes": [], "cuts": [], "alike": []},
        {"buckets": [[[2, -1]]], "axes": [], "cuts": [], "alike": []},
        {"buckets": [[[2, "8"]]], "axes": [], "cuts": [], "alike": []},
        {"buckets": [[[2, 8]]], "axes": [[0]], "cuts": [], "alike": []},
        {"buckets": [[[2, 8]]], "axes": [], "cuts": [[0, 0]], "alike": []},
        {"buckets": [[[2, 8]]], "axes": [], "cuts": [], "alike": [[0, 0]]},
        {"buckets": [[[2, 1 << 26]]], "axes": [], "cuts": [], "alike": []},
        {"buckets": 7, "axes": [], "cuts": []},
        {},
        [],
    ],
)
def test_a_padding_that_no_technique_writes_is_not_read(damaged: Any) -> None:
    node = Settings().to_json() | {"padding": damaged}

    with pytest.raises((ValueError, TypeError, KeyError)):
        Settings.from_json(node)


def test_a_padding_comes_back_from_json() -> None:
    settings = Settings(padding=Padding((((2, 8), (2,)),), ((0, 1),), ((0, 1, 0, 1),), ((0, 0, 1, 0),)))

    assert Settings.from_json(settings.to_json()) == settings


@pytest.mark.parametrize(
    "padding",
    [
        Padding((((2, 8, 4),),), (), ()),
        Padding((((2, 8, 5), (2, 8)),), (), ()),
        Padding((((2, 8, 4), (2, 8)),), ((1, 2),), ()),
        Padding((((2, 8, 4), (2, 8)),), (), ((2, 0, 0, 0),)),
        Padding((((2, 8, 4), (2, 8)),), (), ((0, 0, 0, 3),)),
    ],
)
def test_a_padding_that_does_not_fit_the_program_is_an_artifact_error(
    padding: Padding, masked: Prepared, tmp_path: Path
) -> None:
    model = store.read_model(masked.program)
    store.save(model.replace(settings=dataclasses.replace(model.settings, padding=padding)), tmp_path / "program")

    with pytest.raises(ArtifactError, match=r"it (pads|cuts)"):
        store.load(tmp_path / "program")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_by_the_public_door_it_is_judged_in_every_shape_and_the_artifact_answers_in_all(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    work = vv.Workload(network(Masked), mix=[(call(length), 1.0) for length in LENGTHS], name="masked")

    result = vv.optimize(work, time="100s", out=tmp_path / "fast", plan=["buckets", "openvino"])

    (trial,) = result.candidates
    assert trial.outcome in (Outcome.OK, Outcome.NOT_FASTER), trial.reason
    for length in (*LENGTHS, 7, 31):
        for got, want in zip(vv.load(tmp_path / "fast")(*call(length)), work.model(*call(length)), strict=True):  # type: ignore[operator]
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
