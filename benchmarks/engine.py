"""One recipe on the pipeline's engine; prints the same line of JSON as `benchmarks.bare`.

python -m benchmarks.engine fashion_mnist.cnn .benchmarks/data/processed/fashion_mnist
"""

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artifacts.datasets import Splits
from pipeline.evaluation.scoring import Scorer
from pipeline.models.build import build, steps_are_small
from pipeline.params.params import load_params
from pipeline.training import feed
from pipeline.training.device import choose
from pipeline.training.engine import Data, fit
from pipeline.training.history import Progress


def main() -> None:
    """Train one recipe and print the measurements as a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", metavar="dataset.model")
    parser.add_argument("arrays", type=Path, help="folder of x_train.npy, y_train.npy, x_val.npy …")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="images to train on, instead of all")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), help="not the recipe's one")
    parser.add_argument(
        "--streamed",
        action="store_true",
        help="read chunk by chunk",
    )
    given = parser.parse_args()
    if given.streamed:
        feed.SHARE_OF_MEMORY = 0
    changes = {"precision": given.precision} if given.precision else {}
    print(
        json.dumps(train(given.name, given.arrays, given.epochs, given.seed, given.limit, changes))
    )


def train(
    name: str, arrays: Path, epochs: int, seed: int, limit: int | None, changes: dict[str, Any]
) -> dict[str, Any]:
    """Train, and return seconds, memory and accuracy."""
    dataset, model_name = name.split(".")
    recipe = load_params().recipe(dataset, model_name)
    update = {"epochs": epochs, "then": (), "keep": "last", **changes}
    recipe = recipe.model_copy(update=update)
    splits = Splits(arrays)
    info, rows = splits.info, slice(0, limit)
    x = {split: splits.x(split)[rows] for split in ("train", "val")}
    y = {split: splits.y(split)[rows] for split in ("train", "val")}
    choose("auto", small_steps=steps_are_small(recipe, info.image_shape))
    model = build(recipe, info.image_shape, info.num_classes, seed)
    data = Data(x["train"], y["train"], x["val"], y["val"], info.class_names)
    first: list[float] = []

    def on_progress(progress: Progress) -> None:
        first.append(time.perf_counter())

    start = time.perf_counter()
    history = fit(model, recipe, data, seed=seed, on_progress=on_progress)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    predicted = Scorer(model).probabilities(splits.x("test")[rows]).argmax(axis=1)
    return {
        "first_step": first[0] - start,
        "epochs": [row.seconds for row in history.epochs],
        "test_accuracy": float(np.mean(predicted == splits.y("test")[rows])),
        "parameters": model.count_params(),
        "precision": history.precision,
        "peak_mib": peak,
    }


if __name__ == "__main__":
    main()
