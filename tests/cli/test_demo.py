"""The demo's network and data, and what it asks of the api."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from false_api import FalseApi

from vivace.cli import demo as verb
from vivace.cli.app import main
from vivace.cli.demo import Reload, reload_artifact
from vivace.cli.digits import Digits, DigitsNetwork, accuracy_of, load_digits, train_network
from vivace.core.errors import EnvironmentFault, MissingExtra


def test_the_digits_are_all_there_and_no_image_is_in_both_parts() -> None:
    training, held_out = load_digits()
    assert len(training.labels) + len(held_out.labels) == 1797
    rows = torch.cat([training.images, held_out.images]).flatten(1)
    assert len(torch.unique(rows, dim=0)) == 1797
    assert training.images.shape[1:] == (1, 16, 16)


def test_the_batches_cover_every_image_in_order() -> None:
    _, held_out = load_digits()
    batches = held_out.batches(64)
    assert torch.equal(torch.cat([labels for _, labels in batches]), held_out.labels)
    assert len(batches[0][0]) == 64


def test_two_trainings_give_the_same_network_and_leave_the_random_state_alone() -> None:
    training, _ = load_digits()
    before = torch.get_rng_state()
    first, second = train_network(training, epochs=1), train_network(training, epochs=1)
    assert torch.equal(first.classify.weight, second.classify.weight)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_the_trained_network_is_right_on_97_of_100_images_it_never_saw() -> None:
    training, held_out = load_digits()
    network = train_network(training)
    assert not network.training
    assert accuracy_of(network, held_out) >= 0.97


def test_without_scikit_learn_the_install_line_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingExtra, match=r"vivace\[demo\]"):
        load_digits()


def test_a_failed_reload_shows_the_end_of_what_the_process_said(tmp_path: Path) -> None:
    digits = Digits(torch.zeros(2, 1, 16, 16), torch.zeros(2, dtype=torch.long))
    with pytest.raises(EnvironmentFault, match="could not load and call"):
        reload_artifact(tmp_path / "nothing", digits, 1.0)


def test_the_reload_counts_right_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verb, "RELOAD", "print([0, 1, 1])")
    digits = Digits(torch.zeros(3, 1, 16, 16), torch.tensor([0, 1, 2]))
    assert reload_artifact(tmp_path, digits, 1.0) == Reload(3, pytest.approx(2 / 3), 1.0)


def test_the_demo_trains_optimizes_reloads_and_says_so(
    api: FalseApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vivace.cli.digits.train_network", lambda digits: DigitsNetwork().eval())
    monkeypatch.setattr(verb, "reload_artifact", lambda artifact, digits, accuracy: Reload(1100, 0.99, 0.985))
    assert main(["demo", "--time", "90s", "--out", "there", "--quiet"]) == 0
    ((_, (work,), given),) = api.calls
    assert (work.name, given["time"], given["out"]) == ("digits-cnn", "90s", Path("there"))
    assert capsys.readouterr().out.endswith(
        "reloaded there in a fresh process and called it on 1100 held-out images: accuracy 99.00% (the original: "
        "98.50%)\n"
    )


def test_the_demo_prints_one_document(
    api: FalseApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vivace.cli.digits.train_network", lambda digits: DigitsNetwork().eval())
    monkeypatch.setattr(verb, "reload_artifact", lambda artifact, digits, accuracy: Reload(1100, 0.99, 0.985))
    assert main(["demo", "--json", "--quiet"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["speedup"]["value"] == 2.0
    assert document["demo"] == {"images": 1100, "accuracy": 0.99, "original_accuracy": 0.985}
