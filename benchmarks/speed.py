"""The engine against `model.fit`, recipe by recipe: part of `make bench`.

Runs `benchmarks.bare` and `benchmarks.engine` in turn, each in its own process, on the same arrays
with the same seed, and the engine once more as if the arrays did not fit into memory. Adds a line
for the three to `benchmarks/speed.jsonl`. A recipe and seed with a line are not measured again;
delete the line to repeat them.

    python -m benchmarks.speed                          # the six tutorial recipes, three seeds
    python -m benchmarks.speed mnist.cnn --seeds 1
    python -m benchmarks.speed --table                  # only print the table
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from scipy.stats import ttest_ind

from benchmarks.accuracy import DATA, machine, prepare
from pipeline.models.build import multiplications
from pipeline.params.params import load_params
from pipeline.workspace import Workspace

RESULTS = Path(__file__).parent / "speed.jsonl"
# The number of epochs: all of the recipe if they take a minute or two.
EPOCHS = {
    "fashion_mnist.dense": 10,
    "fashion_mnist.cnn": 4,
    "mnist.cnn": 4,
    "cifar10_images.dense": 8,
    "cifar10_images.cnn": 2,
    "cifar10_images.cnn_bn": 2,
}
TARGETS = dict(zip(EPOCHS, (5.0, 3.0, 2.0, 3.0, 2.0, 2.5), strict=True))
QUIET = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}


def main() -> None:
    """Measure recipes and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("recipes", nargs="*", default=list(EPOCHS), metavar="dataset.model")
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 (default: 3)")
    parser.add_argument("--table", action="store_true", help="only print the table")
    given = parser.parse_args()
    if not given.table:
        for seed in range(given.seeds):
            for recipe in given.recipes:
                _measure(recipe, seed)
    print(table())


def results() -> list[dict[str, Any]]:
    """Return the measurements so far."""
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    return [json.loads(line) for line in lines]


def _measure(recipe: str, seed: int) -> None:
    """Train a recipe all three ways, unless it is measured already."""
    if any((row["recipe"], row["seed"]) == (recipe, seed) for row in results()):
        return
    dataset = recipe.split(".")[0]
    prepare(dataset)
    arrays = Workspace(dataset, DATA).splits.path
    # They take turns in going first, so that neither always runs on a warm machine.
    ways: list[tuple[str, str, tuple[str, ...]]] = [
        ("bare", "bare", ()),
        ("engine", "engine", ()),
        ("streamed", "engine", ("--streamed",)),
    ]
    runs = {
        name: child(f"benchmarks.{module}", recipe, arrays, EPOCHS[recipe], seed, *more)
        for name, module, more in (ways if seed % 2 == 0 else reversed(ways))
    }
    line = {"recipe": recipe, "seed": seed, **runs, "peak": peak(), "machine": machine()}
    with RESULTS.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(recipe, seed, f"{ratio(line):.2f}", flush=True)


def child(
    module: str, recipe: str, arrays: Path, epochs: int, seed: int, *more: str
) -> dict[str, Any]:
    """Run one training; return what it prints, and the seconds of the whole process."""
    options = ["--epochs", str(epochs), "--seed", str(seed), *more]
    command = [sys.executable, "-m", module, recipe, str(arrays), *options]
    start = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=QUIET)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**result, "process": time.perf_counter() - start}


PEAK = """
import json, resource, time
import tensorflow as tf
found = {"import_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
for kind in (tf.float32, tf.bfloat16):
    a = tf.cast(tf.random.normal([2048, 2048]), kind)
    multiply = tf.function(lambda a: tf.matmul(a, a))
    multiply(a)
    best = 0
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(4):
            b = multiply(a)
        b.numpy()
        best = max(best, 4 * 2 * 2048**3 / (time.perf_counter() - start) / 1e9)
    found[kind.name] = best
print(json.dumps(found))
"""


def peak() -> dict[str, float]:
    """Return the GFLOP/s of a large matrix product in both precisions, and TensorFlow's memory."""
    command = [sys.executable, "-c", PEAK]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=QUIET)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def pace(run: dict[str, Any]) -> float:
    """Return the seconds per epoch: the median after the first epoch."""
    return float(statistics.median(run["epochs"][1:]))


def ratio(row: dict[str, Any]) -> float:
    """Return how many times faster an epoch is on the engine."""
    return pace(row["bare"]) / pace(row["engine"])


def same_accuracy(rows: list[dict[str, Any]]) -> str:
    """Return the p-value of the difference in accuracy: Welch's test over seeds."""
    if len(rows) < 2:
        return "-"
    bare, engine = ([row[name]["test_accuracy"] for row in rows] for name in ("bare", "engine"))
    return f"{ttest_ind(bare, engine, equal_var=False).pvalue:.2f}"


def gflops(row: dict[str, Any], way: str) -> float:
    """Return the GFLOP/s of training in the layers with kernels.

    A backward pass counts as two forward passes; validation is one forward pass on a ninth of the
    images.
    """
    dataset, model = row["recipe"].split(".")
    splits = Workspace(dataset, DATA).splits
    forward = 2 * multiplications(load_params().recipe(dataset, model), splits.info.image_shape)
    images = len(splits.y("train"))
    return images * forward * (3 + 1 / 9) / 1e9 / pace(row[way])


def allowed_mib(row: dict[str, Any]) -> float:
    """Return the memory that is allowed: TensorFlow's import, twice the arrays, and the model."""
    splits = Workspace(row["recipe"].split(".")[0], DATA).splits
    arrays = sum(splits.x(split).nbytes for split in ("train", "val")) / 2**20
    return float(row["peak"]["import_mib"] + 2 * arrays + 4 * row["engine"]["parameters"] / 2**20)


def table() -> str:
    """Return the results as Markdown tables with a row per recipe."""
    groups = {
        recipe: rows
        for recipe in EPOCHS
        if (rows := [row for row in results() if row["recipe"] == recipe])
    }

    for recipe in groups:
        prepare(recipe.split(".")[0])  # the table needs the sizes of its arrays

    def of(rows: list[dict[str, Any]], key: str, *ways: str, factor: float = 1) -> list[float]:
        return [factor * statistics.mean(row[way][key] for row in rows) for way in ways]

    speed = [
        "| recipe | seeds | bare, s/epoch | engine, s/epoch | times faster (lowest to highest) "
        "| target | first step, s: bare | engine |",
        "|---" * 8 + "|",
    ]
    learned = ["| recipe | epochs | test accuracy: bare | engine | p |", "|---" * 5 + "|"]
    used = [
        "| recipe | peak MiB: bare | engine | at most | streamed, speed of the engine's "
        "| GFLOP/s: bare | engine |",
        "|---" * 7 + "|",
    ]
    for recipe, rows in groups.items():
        ratios = [ratio(row) for row in rows]
        paces = [statistics.mean(pace(row[way]) for row in rows) for way in ("bare", "engine")]
        first = of(rows, "first_step", "bare", "engine")
        speed.append(
            f"| {recipe} | {len(rows)} | {paces[0]:.2f} | {paces[1]:.2f} "
            f"| **{statistics.mean(ratios):.1f}** ({min(ratios):.1f} to {max(ratios):.1f}) "
            f"| {TARGETS[recipe]} | {first[0]:.1f} | {first[1]:.1f} |"
        )
        right = of(rows, "test_accuracy", "bare", "engine", factor=100)
        learned.append(
            f"| {recipe} | {EPOCHS[recipe]} | {right[0]:.2f}% | {right[1]:.2f}% "
            f"| {same_accuracy(rows)} |"
        )
        memory = of(rows, "peak_mib", "bare", "engine")
        allowed = statistics.mean(map(allowed_mib, rows))
        streamed = statistics.mean(pace(row["engine"]) / pace(row["streamed"]) for row in rows)
        work = [statistics.mean(gflops(row, way) for row in rows) for way in ("bare", "engine")]
        used.append(
            f"| {recipe} | {memory[0]:.0f} | {memory[1]:.0f} | {allowed:.0f} "
            f"| {streamed:.2f} | {work[0]:.0f} | {work[1]:.0f} |"
        )
    return "\n\n".join("\n".join(lines) for lines in (speed, learned, used))


if __name__ == "__main__":
    main()
