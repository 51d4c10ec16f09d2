"""The classic script in Keras, on the back end that KERAS_BACKEND names: python keras_mnist.py DATA.npz SEED EPOCHS.

Needs Keras, NumPy and that back end, and prints one line of JSON. Compilation is in the first epoch.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import keras
import numpy as np
from course import Course

BATCH = 64


class Watch(keras.callbacks.Callback):
    """Seconds of each epoch; the held-out accuracy is computed between them, and not counted."""

    def __init__(self, course: Course, images: Any, labels: Any) -> None:
        super().__init__()
        self.course, self.images, self.labels = course, images, labels

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.course.epoch_seconds.append(time.perf_counter() - self.began)
        answers = np.argmax(keras.ops.convert_to_numpy(self.model(self.images, training=False)), axis=1)
        self.course.scores.append(float((answers == self.labels).mean()))


def main(data: str, seed: int, epochs: int) -> None:
    keras.utils.set_random_seed(seed)
    arrays = np.load(data)
    model = keras.Sequential(
        [keras.layers.Input((784,)), keras.layers.Dense(128, activation="relu"), keras.layers.Dense(10, "softmax")]
    )
    model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    course = Course()
    watch = Watch(course, arrays["held_images"], arrays["held_labels"])
    began = time.perf_counter()
    model.fit(arrays["images"], arrays["labels"], batch_size=BATCH, epochs=epochs, verbose=0, callbacks=[watch])
    total = time.perf_counter() - began
    found = {**course.document(), "fit_seconds": total, "backend": keras.backend.backend(), "keras": keras.__version__}
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
