"""The tiny models: the same for the same seed, and with the answers that they promise."""

import pytest
import torch

from vivace.core.errors import UnsupportedModel
from vivace.runtimes import capture
from vivace.testing import tiny

EVERY = pytest.mark.parametrize("model", tiny.MODELS, ids=lambda model: model.name)


@EVERY
def test_a_seed_gives_the_same_weights_each_time(model):
    first, second = model.model(3).state_dict(), model.model(3).state_dict()

    assert all(torch.equal(first[name], second[name]) for name in first)


@EVERY
def test_building_leaves_the_random_state_alone(model):
    before = torch.get_rng_state()

    model.model()

    assert torch.equal(before, torch.get_rng_state())


@EVERY
def test_a_model_is_captured_for_any_number_of_samples(model):
    captured = capture.capture(model.model(), model.inputs())

    assert captured.note == ""
    assert captured.model.signature.has_batch


@pytest.mark.parametrize("model", [m for m in tiny.MODELS if m.classes], ids=lambda model: model.name)
def test_labels_are_the_models_own_decisions(model):
    call, labels = model.pairs()[0]

    scores = tiny.answer(model.model(), call)

    assert scores.shape[-1] == model.classes
    assert torch.equal(scores.argmax(-1), labels)


def test_a_model_without_scores_has_no_labels():
    with pytest.raises(ValueError, match="no scores"):
        tiny.tiny("tuple").pairs()


@pytest.mark.parametrize("model", [tiny.BRANCHING, tiny.NOISY], ids=lambda model: model.name)
def test_what_cannot_be_kept_is_not_captured(model):
    with pytest.raises(UnsupportedModel):
        capture.capture(model.model(), model.inputs())
