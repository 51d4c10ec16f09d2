"""Planted candidates are techniques like any other, and each misbehaves as it says."""

import json

import pytest
import torch

from vivace.core.errors import UsageError
from vivace.core.plan import Plan, read_plan
from vivace.runtimes import capture, store
from vivace.techniques import CATALOGUE
from vivace.testing import contract, planted, tiny


@pytest.mark.parametrize("check", contract.CHECKS, ids=contract.name_of)
@pytest.mark.parametrize("kind", planted.PLANTED, ids=lambda kind: kind.name())
def test_a_planted_candidate_keeps_the_contract_of_its_class(kind, check):
    check(kind)


def test_no_planted_candidate_is_in_the_catalogue():
    assert not set(planted.PLANTED) & set(CATALOGUE)


@pytest.fixture
def opened(tmp_path):
    """A function that opens the stored MLP under a plan with one planted technique."""
    model = tiny.tiny("mlp")
    store.save(capture.capture(model.model(), model.inputs()).model, tmp_path / "program")

    def open_under(technique):
        plan = json.loads(json.dumps(Plan((technique,)).to_json()))
        return planted.open_planted({"folder": str(tmp_path / "program"), "trust": True, "plan": plan})

    return open_under


@pytest.fixture
def wanted():
    model = tiny.tiny("mlp")
    with torch.no_grad():
        return model.model()(*model.inputs(64))


@pytest.fixture
def call():
    return tiny.tiny("mlp").inputs(64)


def test_nan_answers_are_nan(opened, call):
    assert opened(planted.NanAnswer())(*call).isnan().all()


def test_constant_answers_are_ones(opened, call):
    assert torch.equal(opened(planted.ConstantAnswer())(*call), torch.ones(64, 5))


def test_batch_dependent_answers_are_right_for_one_sample_only(opened, call, wanted):
    program = opened(planted.BatchDependentAnswer())

    torch.testing.assert_close(program(call[0][:1]), wanted[:1])
    assert not torch.allclose(program(*call), wanted, atol=1e-3)


def test_cached_answers_are_right_and_remembered(opened, call, wanted):
    program = opened(planted.CachedAnswer(seconds=0.0))

    torch.testing.assert_close(program(*call), wanted)
    assert program(*call) is program(*call)


def test_one_class_alone_is_wrong_and_only_in_part(opened):
    call = tiny.tiny("mlp").inputs(20_000)
    with torch.no_grad():
        expected = tiny.tiny("mlp").model()(*call).argmax(1)

    wrong = opened(planted.WrongOnOneClass(share=0.05))(*call).argmax(1) != expected

    assert set(expected[wrong].tolist()) == {0}
    assert wrong.sum() / (expected == 0).sum() == pytest.approx(0.05, abs=0.02)


def test_one_shape_alone_is_wrong(opened, call, wanted):
    torch.testing.assert_close(opened(planted.WrongInOneShape(size=16))(*call), wanted * 1.1)
    torch.testing.assert_close(opened(planted.WrongInOneShape(size=17))(*call), wanted)


@pytest.mark.parametrize("technique", [planted.HangAtExit(), planted.Equal(seconds=0.0)], ids=str)
def test_a_candidate_that_only_dawdles_answers_rightly(opened, call, wanted, technique, monkeypatch):
    monkeypatch.setattr(planted.atexit, "register", lambda *args: None)

    torch.testing.assert_close(opened(technique)(*call), wanted)


def test_a_late_crash_comes_at_its_call(opened, call, monkeypatch):
    crashes = []
    monkeypatch.setattr(planted, "_crash", lambda: crashes.append("crash"))
    program = opened(planted.CrashAtCall(calls=3))

    counts = [len(crashes) for _ in range(4) if program(*call) is not None]

    assert counts == [0, 0, 1, 2]


def test_the_paces_are_those_that_they_promise():
    assert [kind().factor() for kind in (planted.Slower, planted.Equal, planted.Faster)] == [1.3, 1.0, 1 / 1.05]


def test_a_plan_without_a_planted_technique_is_refused(tmp_path):
    with pytest.raises(UsageError, match="none of"):
        planted.open_planted({"folder": str(tmp_path), "plan": []})


def test_the_stored_program_holds_nothing_of_the_fault(tmp_path):
    model = tiny.tiny("mlp")
    original = capture.capture(model.model(), model.inputs()).model

    store.save(planted.NanAnswer().apply(original, None), tmp_path / "program")

    assert not store.load(tmp_path / "program")(*model.inputs()).isnan().any()


def test_the_names_are_enough_for_a_builder_to_find_them():
    plan = Plan((planted.CrashAtCall(7),))

    assert read_plan(plan.to_json(), {kind.name(): kind for kind in planted.PLANTED}) == plan
