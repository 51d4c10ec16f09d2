"""The classic Keras script on real handwritten digits, trained by `vivace train examples/keras_training.py:job`."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
from sklearn.datasets import load_digits

import vivace as vv

DIGITS = load_digits()
IMAGES, LABELS = DIGITS.images.reshape(-1, 64).astype("float32") / 16, DIGITS.target
TRAINED = 1500


def build() -> Any:
    """A perceptron with one hidden layer, compiled as the tutorials do it."""
    model = keras.Sequential(
        [keras.layers.Input((64,)), keras.layers.Dense(128, activation="relu"), keras.layers.Dense(10, "softmax")]
    )
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


job = vv.keras_training(
    build, IMAGES[:TRAINED], LABELS[:TRAINED], validation_data=(IMAGES[TRAINED:], LABELS[TRAINED:]), batch_size=64,
    epochs=5, name="keras-digits",
)  # fmt: skip


def main(time: str = "1m") -> None:
    """Train, say what was won, and write the model back as Keras keeps it."""
    run = vv.train(job, time=time)
    file = Path(tempfile.mkdtemp()) / "digits.keras"
    run.model.save(file)
    print(f"{run.plan}: {run.speedup}, parity {run.parity and run.parity.verdict.value}, accuracy {run.scores[-1]:.3f}")
    print(f"{file.name}: {file.stat().st_size} bytes, {keras.saving.load_model(file).count_params()} weights")


if __name__ == "__main__":
    main()
