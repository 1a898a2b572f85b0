"""The engine against `model.fit`, recipe by recipe: part of `make bench`.

Runs `benchmarks.bare` and `benchmarks.engine` in turn, each in a process of its own, on the same
arrays with the same seed, and adds a line for each pair to `benchmarks/speed.jsonl`. What has a
line is not measured again; delete the line to do so.

    python -m benchmarks.speed                          # the six tutorial recipes, three seeds
    python -m benchmarks.speed mnist.cnn --seeds 1
    python -m benchmarks.speed --table                  # the table of what is there
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

from benchmarks.accuracy import DATA, prepare
from pipeline.models import multiplications
from pipeline.params import load_params
from pipeline.provenance import cpu_name
from pipeline.workspace import Workspace

RESULTS = Path(__file__).parent / "speed.jsonl"
# How many of a recipe's epochs are run: all where that takes a minute or two.
EPOCHS = {
    "fashion_mnist.dense": 10,
    "fashion_mnist.cnn": 4,
    "mnist.cnn": 4,
    "cifar10_images.dense": 8,
    "cifar10_images.cnn": 2,
    "cifar10_images.cnn_bn": 2,
}
ASKED = dict(zip(EPOCHS, (5.0, 3.0, 2.0, 3.0, 2.0, 2.5), strict=True))
QUIET = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}


def main() -> None:
    """Measure what is asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("recipes", nargs="*", default=list(EPOCHS), metavar="dataset.model")
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 (default: 3)")
    parser.add_argument("--table", action="store_true", help="measure nothing, print the table")
    given = parser.parse_args()
    if not given.table:
        for seed in range(given.seeds):
            for recipe in given.recipes:
                _pair(recipe, seed)
    print(table())


def results() -> list[dict[str, Any]]:
    """Return what was measured so far."""
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    return [json.loads(line) for line in lines]


def _pair(recipe: str, seed: int) -> None:
    """Train a recipe both ways, unless that was done."""
    if any((row["recipe"], row["seed"]) == (recipe, seed) for row in results()):
        return
    dataset = recipe.split(".")[0]
    prepare(dataset)
    arrays = Workspace(dataset, DATA).splits.path
    # The one that comes first changes, so that neither always finds the machine warm.
    names = ("bare", "engine") if seed % 2 == 0 else ("engine", "bare")
    runs = {
        name: child(f"benchmarks.{name}", recipe, arrays, EPOCHS[recipe], seed) for name in names
    }
    line = {"recipe": recipe, "seed": seed, **runs, "peak": peak(), "machine": machine()}
    with RESULTS.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(recipe, seed, f"{ratio(line):.2f}", flush=True)


def child(module: str, recipe: str, arrays: Path, epochs: int, seed: int) -> dict[str, Any]:
    """Run one training, and return what it prints with the seconds of the whole process."""
    options = ["--epochs", str(epochs), "--seed", str(seed)]
    command = [sys.executable, "-m", module, recipe, str(arrays), *options]
    start = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=QUIET)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**result, "process": time.perf_counter() - start}


PEAK = """
import json, time
import tensorflow as tf
found = {}
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
    """Return the GFLOP/s of a large matrix product, in both precisions."""
    command = [sys.executable, "-c", PEAK]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=QUIET)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def machine() -> dict[str, Any]:
    """Return what it was measured on."""
    return {"cpu": cpu_name(), "cores": len(os.sched_getaffinity(0)), "load": os.getloadavg()[0]}


def ratio(row: dict[str, Any]) -> float:
    """Return how many times faster an epoch is, over those after the first."""
    seconds = [statistics.median(row[name]["epochs"][1:]) for name in ("bare", "engine")]
    return float(seconds[0] / seconds[1])


def same_accuracy(rows: list[dict[str, Any]]) -> str:
    """Return how likely accuracies so far apart are by chance alone: Welch's test over seeds."""
    if len(rows) < 2:
        return "-"
    bare, engine = ([row[name]["test_accuracy"] for row in rows] for name in ("bare", "engine"))
    return f"{ttest_ind(bare, engine, equal_var=False).pvalue:.2f}"


def gflops(recipe: str, run: dict[str, Any]) -> float:
    """Return the floating point operations of training per second, in the layers with kernels.

    A step back is counted as two forward, and validation as a ninth of the images, once forward.
    """
    splits = Workspace(recipe.split(".")[0], DATA).splits
    said = load_params().recipe(*recipe.split("."))
    forward = 2 * multiplications(said, splits.info.image_shape)
    images = len(splits.y("train"))
    return images * forward * (3 + 1 / 9) / 1e9 / statistics.median(run["epochs"][1:])


def table() -> str:
    """Return the results as a Markdown table: a row per recipe, over its seeds."""
    lines = [
        "| recipe | bare, s/epoch | engine, s/epoch | ratio (range) | asked | first step, s "
        "| accuracy, bare | engine | p | peak MiB, bare | engine | GFLOP/s, bare | engine |",
        "|---" * 13 + "|",
    ]
    for recipe in EPOCHS:
        rows = [row for row in results() if row["recipe"] == recipe]
        if not rows:
            continue
        ratios = [ratio(row) for row in rows]
        bare, engine = ([row[name] for row in rows] for name in ("bare", "engine"))
        seconds, memory, steps, right = (
            [statistics.mean(value(run) for run in runs) for runs in (bare, engine)]
            for value in (
                lambda run: statistics.median(run["epochs"][1:]),
                lambda run: run["peak_mib"],
                lambda run: run["first_step"],
                lambda run: 100 * run["test_accuracy"],
            )
        )
        work = [statistics.mean(gflops(recipe, run) for run in runs) for runs in (bare, engine)]
        lines.append(
            f"| {recipe} | {seconds[0]:.2f} | {seconds[1]:.2f} "
            f"| **{statistics.mean(ratios):.1f}** ({min(ratios):.1f} to {max(ratios):.1f}) "
            f"| {ASKED[recipe]} | {steps[0]:.1f} / {steps[1]:.1f} "
            f"| {right[0]:.2f}% | {right[1]:.2f}% | {same_accuracy(rows)} "
            f"| {memory[0]:.0f} | {memory[1]:.0f} | {work[0]:.0f} | {work[1]:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
