"""The six tutorial recipes as a plain script trains them: float arrays and `model.fit`.

Nothing of the pipeline is used here, so that it can be held against it:

    python -m benchmarks.bare fashion_mnist.cnn .benchmarks/data/processed/fashion_mnist
"""

import argparse
import json
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Tutorial:
    """What a tutorial trains, and how.

    Attributes:
        layers: all of them but the softmax layer, new ones at each call.
        optimizer: new at each call.
        one_hot: whether labels are vectors.
    """

    layers: Callable[[], list[Any]]
    optimizer: Callable[[], Any]
    batch_size: int
    one_hot: bool = False


def _pyramid(start: int) -> list[Any]:
    """Three pairs of convolutions; each has twice the filters and half the side of the last one."""
    pairs: list[Any] = []
    for filters in (start, 2 * start, 4 * start):
        for _ in range(2):
            pairs.append(layers.Conv2D(filters, 3, padding="same", activation="relu"))
            pairs.append(layers.BatchNormalization())
        pairs.append(layers.MaxPooling2D())
    return pairs


TUTORIALS = {
    "fashion_mnist.dense": Tutorial(
        lambda: [
            layers.Flatten(),
            *(layers.Dense(units, activation="relu") for units in (16, 32, 64, 128, 256)),
        ],
        keras.optimizers.Adam,
        32,
    ),
    "fashion_mnist.cnn": Tutorial(
        lambda: [
            layers.Conv2D(32, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2D(64, 3, strides=2, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(128, 3, strides=2, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(256, 3, strides=2, padding="same", activation="relu"),
            layers.Flatten(),
        ],
        keras.optimizers.Adam,
        32,
    ),
    "mnist.cnn": Tutorial(
        lambda: [
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
        ],
        keras.optimizers.RMSprop,
        64,
    ),
    "cifar10_images.dense": Tutorial(
        lambda: [
            layers.Flatten(),
            layers.Dense(512, activation="relu"),
            layers.Dense(512, activation="relu"),
        ],
        keras.optimizers.RMSprop,
        32,
        one_hot=True,
    ),
    "cifar10_images.cnn": Tutorial(
        lambda: [
            layers.Conv2D(
                32,
                3,
                padding="same",
                activation="relu",
                kernel_constraint=keras.constraints.MaxNorm(3),
            ),
            layers.Dropout(0.2),
            layers.Conv2D(
                32,
                3,
                padding="same",
                activation="relu",
                kernel_constraint=keras.constraints.MaxNorm(3),
            ),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(512, activation="relu", kernel_constraint=keras.constraints.MaxNorm(3)),
            layers.Dropout(0.5),
        ],
        lambda: keras.optimizers.SGD(
            keras.optimizers.schedules.InverseTimeDecay(0.01, 1, 0.0004), momentum=0.9
        ),
        32,
        one_hot=True,
    ),
    "cifar10_images.cnn_bn": Tutorial(
        lambda: [
            *_pyramid(32),
            layers.Flatten(),
            layers.Dropout(0.2),
            layers.Dense(1024, activation="relu"),
            layers.Dropout(0.2),
        ],
        keras.optimizers.Adam,
        32,
    ),
}


class Clock(keras.callbacks.Callback):  # type: ignore[misc]
    """The time after the first step, and after each epoch with its validation."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Store the time of the first step."""
        self.first_step = getattr(self, "first_step", time.perf_counter())

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Store the time."""
        self.ends = [*getattr(self, "ends", []), time.perf_counter()]


def main() -> None:
    """Train one recipe and print the measurements as a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", choices=TUTORIALS)
    parser.add_argument("arrays", type=Path, help="folder of x_train.npy, y_train.npy, x_val.npy …")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="images to train on, instead of all")
    given = parser.parse_args()
    print(json.dumps(train(given.name, given.arrays, given.epochs, given.seed, given.limit)))


def train(name: str, arrays: Path, epochs: int, seed: int, limit: int | None) -> dict[str, Any]:
    """Train, and return seconds, memory and accuracy."""
    keras.utils.set_random_seed(seed)
    tutorial = TUTORIALS[name]
    x, y = {}, {}
    for split in ("train", "val", "test"):
        x[split] = np.load(arrays / f"x_{split}.npy")[:limit].astype("float32") / 255
        y[split] = np.load(arrays / f"y_{split}.npy")[:limit]
        if tutorial.one_hot:
            y[split] = keras.utils.to_categorical(y[split], 10)
    shape = x["train"].shape[1:]
    softmax = layers.Dense(10, activation="softmax")
    model = keras.Sequential([keras.Input(shape), *tutorial.layers(), softmax])
    loss = "categorical_crossentropy" if tutorial.one_hot else "sparse_categorical_crossentropy"
    model.compile(tutorial.optimizer(), loss, metrics=["accuracy"])
    clock, start = Clock(), time.perf_counter()
    model.fit(
        x["train"],
        y["train"],
        batch_size=tutorial.batch_size,
        epochs=epochs,
        validation_data=(x["val"], y["val"]),
        verbose=0,
        callbacks=[clock],
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    ends = [start, *clock.ends]
    _, accuracy = model.evaluate(x["test"], y["test"], batch_size=512, verbose=0)
    return {
        "first_step": clock.first_step - start,
        "epochs": [after - before for before, after in pairwise(ends)],
        "test_accuracy": accuracy,
        "parameters": model.count_params(),
        "peak_mib": peak,
    }


if __name__ == "__main__":
    main()
