"""Keras models as jobs: they train what `keras.Model.fit` trains, by the same verbs, and are written back as .keras."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vivace as vv
from vivace.core.errors import MissingExtra, NotApplicable, UsageError
from vivace.core.plan import Plan
from vivace.core.quality import QualityVerdict
from vivace.core.training.job import Training
from vivace.core.training.parity import Kind
from vivace.techniques.compile.recorded_step import RecordedStep
from vivace.techniques.feed.sample_cache import SampleCache
from vivace.techniques.parallel.threads import Threads
from vivace.testing.tiny_training import Points
from vivace.training.examine import examine
from vivace.training.keras_job import KerasModule
from vivace.training.loop import Loop
from vivace.training.rig import assemble, seed_everything
from vivace.training.service import equip
from vivace.training.step import train_step

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")

POINTS = Points()
X, Y = POINTS.points.numpy(), POINTS.labels.numpy()


def build(optimizer: Any = "adam", **compiled: Any) -> Any:
    """Batch normalization, dropout (from a seed, else `fit` draws other masks) and a penalty on weights."""
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((12,)), layers.Dense(16, activation="relu", kernel_regularizer="l2"),
            layers.BatchNormalization(), layers.Dropout(0.2, seed=3), layers.Dense(4),
        ]
    )  # fmt: skip
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(**{"optimizer": optimizer, "loss": loss, "metrics": ["accuracy"], **compiled})
    return model


def job(factory: Any = build, **changes: Any) -> Training:
    asked = {"batch_size": 16, "epochs": 2, "validation_data": (X, Y), "shuffle": False, "name": "keras"}
    return vv.keras_training(factory, X, Y, **{**asked, **changes})


def trained(work: Training) -> Loop:
    loop = Loop(work, assemble(work), None, "")
    while not loop.advance(100).is_over:
        pass
    return loop


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: "adam",
        lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True, clipnorm=1.0),
        lambda: keras.optimizers.AdamW(keras.optimizers.schedules.ExponentialDecay(1e-2, 3, 0.5)),
    ],
    ids=["adam", "clipped", "scheduled"],
)
def test_it_trains_what_fit_trains(optimizer: Any) -> None:
    loop = trained(job(lambda: build(optimizer())))

    seed_everything(0)
    model = build(optimizer())
    model.fit(X, Y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    found = loop.rig.model
    assert isinstance(found, KerasModule)
    for own, other in zip(found.keras_model.variables, model.variables, strict=True):
        torch.testing.assert_close(own.value, other.value, rtol=1e-5, atol=1e-6)
    assert loop.score() == pytest.approx(model.evaluate(X, Y, verbose=0, return_dict=True)["accuracy"])


@pytest.mark.parametrize("technique", [SampleCache(), Threads(2)], ids=str)
def test_gradients_and_moving_statistics_are_compared_with_float64(technique: Any) -> None:
    work, plan = job(), Plan((technique,))
    found = examine(work, lambda rig: equip(rig, work, plan), technique.unit_roundoff)

    assert found.reference == "float64"
    assert [one for one in found.agreements if not one.holds] == []
    moving = {f"sequential/batch_normalization/moving_{one}" for one in ("mean", "variance")}
    buffers = {one.name for one in found.agreements if one.kind is Kind.BUFFER}
    assert buffers == {*moving, "seed_generator/seed_generator_state"}
    assert "sequential/dense_1/kernel" in {one.name for one in found.agreements if one.kind is Kind.GRADIENT}
    assert keras.config.floatx() == "float32"


def test_a_keras_job_that_was_stopped_goes_on_exactly(tmp_path: Path) -> None:
    work = job()
    wanted = trained(work).rig.model.state_dict()

    first = Loop(work, assemble(work), tmp_path, "x")
    first.advance(5)
    first.save()
    second = Loop(work, assemble(work), tmp_path, "x")
    assert second.resume().steps == 5
    while not second.advance(100).is_over:
        pass

    assert all(torch.equal(value, wanted[name]) for name, value in second.rig.model.state_dict().items())


def uncompiled() -> Any:
    return keras.Sequential([keras.layers.Input((12,)), keras.layers.Dense(4)])


class Stepping(keras.Sequential):  # type: ignore[misc]
    def train_step(self, data: Any) -> Any:
        return super().train_step(data)


def stepping() -> Any:
    model = Stepping([keras.layers.Input((12,)), keras.layers.Dense(4)])
    model.compile("adam", "mse")
    return model


SHARED = build()
RATE = keras.optimizers.Adam()


@pytest.mark.parametrize(
    ("factory", "told"),
    [
        (lambda: 3, "model returned a int; allowed is a compiled keras.Model"),
        (uncompiled, r"not compiled; call model\.compile"),
        (stepping, "Stepping has a train_step of its own"),
        (lambda: SHARED, "model returned a model that it had returned before"),
        (lambda: build(RATE), "the optimizer of a model that it had returned before"),
    ],
    ids=["number", "uncompiled", "train-step", "same", "same-optimizer"],
)
def test_what_cannot_be_trained_is_refused(factory: Any, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        for _ in range(2):
            assemble(job(factory))


def test_a_score_that_keras_does_not_give_is_refused() -> None:
    wrong = job(score="acuracy")
    with pytest.raises(UsageError, match="score is 'acuracy'; allowed are accuracy, loss"):
        Loop(wrong, assemble(wrong), None, "").score()


def test_a_metric_whose_sign_is_turned_is_lower_is_better() -> None:
    work = job(score="-loss")
    assert Loop(work, assemble(work), None, "").score() < 0  # type: ignore[operator]


def test_arrays_of_different_lengths_are_refused() -> None:
    with pytest.raises(UsageError, match=r"the arrays hold \[50, 103\] samples"):
        vv.keras_training(build, X, Y[:50])


def test_without_keras_the_line_that_installs_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vivace.training.keras_job.is_installed", lambda _: False)
    with pytest.raises(MissingExtra, match=r"pip install 'vivace\[keras\]'"):
        vv.keras_training(build, X, Y)


def test_another_back_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(UsageError, match="Keras runs on its jax back end; allowed is torch: set KERAS_BACKEND=torch"):
        vv.keras_training(build, X, Y)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Keras and NumPy, about each other
def test_a_keras_model_is_trained_by_the_verbs_and_saved_again(tmp_path: Path) -> None:
    work = dataclasses.replace(job(), epochs=4)
    assert vv.parity(work, ["sample-cache"]).verdict is QualityVerdict.HELD
    run = vv.train(work, plan=["sample-cache"], out=tmp_path / "run")
    assert isinstance(run.model, KerasModule)
    run.model.save(tmp_path / "model.keras")

    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(X, verbose=0), run.model.keras_model.predict(X, verbose=0))
    assert again.evaluate(X, Y, verbose=0, return_dict=True)["accuracy"] == pytest.approx(run.scores[-1])


def plain() -> Any:
    """Without dropout, and with statistics that the step writes."""
    layers = keras.layers
    model = keras.Sequential(
        [layers.Input((12,)), layers.Dense(16, activation="relu"), layers.BatchNormalization(), layers.Dense(4)]
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model


def test_a_recorded_step_trains_what_the_layers_compute() -> None:
    work = job(plain)
    wanted = trained(work)
    loop = Loop(work, equip(assemble(work), work, Plan.of([RecordedStep()])), None, "")
    while not loop.advance(100).is_over:
        pass

    for name, value in wanted.rig.model.state_dict().items():
        torch.testing.assert_close(loop.rig.model.state_dict()[name], value, rtol=1e-5, atol=1e-6)
    found = examine(work, lambda rig: equip(rig, work, Plan.of([RecordedStep()])))
    assert all(one.holds for one in found.agreements)


def test_a_step_that_asks_for_values_says_so() -> None:
    def shifted() -> Any:
        model = keras.Sequential([keras.layers.Input((4, 4, 1)), keras.layers.RandomTranslation(0.1, 0.1),
                                  keras.layers.Flatten(), keras.layers.Dense(4)])  # fmt: skip
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    images = np.zeros((32, 4, 4, 1), np.float32)
    work = vv.keras_training(shifted, images, np.zeros(32, int), batch_size=16, name="shifted")
    rig = equip(assemble(work), work, Plan.of([RecordedStep()]))

    with pytest.raises(NotApplicable, match="it asks for values"):
        train_step(rig, next(iter(rig.feed.epoch(0))))
