"""The speed of `pipeline predict`, and of a LiteRT file within a process.

For each tutorial CNN: seconds from the start of the process to its answer for one image file,
milliseconds per image, and images per second on the whole test split. Adds a line per recipe to
`benchmarks/prediction.jsonl` and prints a table of all lines. The models are untrained: the weights
do not change the time.

    python -m benchmarks.prediction                              # three recipes, 20 runs of each
    python -m benchmarks.prediction mnist.cnn --runs 5 --threads 1
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.accuracy import DATA, prepare
from pipeline.artifacts.models import RunInfo, TrainedModel
from pipeline.evaluation.litert import LiteRTModel, LiteRTRecord, read_checked
from pipeline.parallel import cores
from pipeline.params.params import load_params
from pipeline.tracking.describe import environment
from pipeline.workspace import Workspace

RESULTS = Path(__file__).parent / "prediction.jsonl"
DEFAULT = ("fashion_mnist.cnn", "mnist.cnn", "cifar10_images.cnn")
CALLS_PER_RUN = 200


def main() -> None:
    """Measure recipes and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("recipes", nargs="*", default=DEFAULT, metavar="dataset.model")
    parser.add_argument("--runs", type=int, default=20, help="runs of each (default: 20)")
    parser.add_argument("--threads", type=int, help="threads of the model (default: one per core)")
    parser.add_argument("--export", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    for recipe in arguments.recipes:
        if arguments.export:
            make_model(recipe)
            continue
        # In another process: TensorFlow's threads would disturb the measurements here.
        command = [sys.executable, "-m", "benchmarks.prediction", recipe, "--export"]
        subprocess.run(command, check=True)
        line = measure(recipe, arguments.runs, arguments.threads)
        with RESULTS.open("a") as file:
            file.write(json.dumps(line) + "\n")
    if not arguments.export:
        print(table())


def place(recipe: str) -> tuple[Workspace, TrainedModel]:
    """Return the workspace with the data and the model of a recipe."""
    dataset, model = recipe.split(".")
    workspace = Workspace(dataset, DATA)
    return workspace, workspace.trained(model)


def make_model(recipe: str) -> None:
    """Build the model of a recipe, and write its Keras and its LiteRT file."""
    from pipeline.cli.app import import_tensorflow

    import_tensorflow()
    from pipeline.artifacts.files import atomic, sha256
    from pipeline.evaluation.export import export
    from pipeline.evaluation.scoring import Scorer
    from pipeline.models.build import build

    dataset, name = recipe.split(".")
    prepare(dataset)
    workspace, trained = place(recipe)
    splits = workspace.splits
    info = splits.info
    model = build(load_params().recipe(dataset, name), info.image_shape, info.num_classes, 0)
    with atomic(trained.model) as part:
        model.save(part)
    RunInfo(
        run_id="none",
        experiment="none",
        dataset=dataset,
        model=name,
        class_names=info.class_names,
        image_shape=info.image_shape,
        data_md5="none",
        model_sha256=sha256(trained.model),
        seed=0,
        device="cpu",
        parameters=model.count_params(),
        epochs=0,
        training_seconds=0.0,
        val_accuracy=0.0,
        val_loss=0.0,
        git_commit=None,
        git_dirty=None,
    ).save(trained.path / "run.json")
    export(model, trained, splits.x("test"), Scorer(model).probabilities(splits.x("test")))
    Image.fromarray(np.squeeze(splits.x("test")[0])).save(trained.path / "image.png")


def measure(recipe: str, runs: int, threads: int | None) -> dict[str, Any]:
    """Measure a recipe and return its line."""
    workspace, trained = place(recipe)
    images = np.array(workspace.splits.x("test"))
    litert = LiteRTModel(read_checked(trained), threads)
    command = ["pipeline", "predict", str(trained.path / "image.png"), "--json"]
    command += ["--model", str(trained.path)]
    starts = timed(lambda _: subprocess.run(command, check=True, capture_output=True), runs)
    single = timed(
        lambda at: litert.probabilities(images[at % len(images)][None]), runs * CALLS_PER_RUN
    )
    batches = timed(lambda _: litert.probabilities(images), runs)
    rates = len(images) / np.array(batches)
    return {
        "recipe": recipe,
        "runs": runs,
        "start_to_answer_s": quantiles(starts, (0, 50, 100), 3),
        "latency_ms": quantiles(np.array(single) * 1000, (50, 95, 99), 4),
        "images_per_second": quantiles(rates, (0, 50, 100), 0),
        "difference": LiteRTRecord.load(trained.litert_record).difference,
        "cores": cores(),
        "threads": threads,
        "machine": environment().model_dump(exclude={"packages"}),
    }


def timed(call: Callable[[int], object], times: int) -> list[float]:
    """Return the seconds of each call, after one call as a warm-up."""
    call(0)
    seconds = []
    for number in range(times):
        start = time.perf_counter()
        call(number)
        seconds.append(time.perf_counter() - start)
    return seconds


def quantiles(values: Any, which: tuple[int, ...], digits: int) -> dict[str, float]:
    """Return percentiles by name; the 0th is the smallest value, the 100th the largest."""
    found = np.percentile(values, which).round(digits)
    return {f"p{name}": float(value) for name, value in zip(which, found, strict=True)}


def table() -> str:
    """Return the last line of each recipe as a Markdown table."""
    lines = [
        "| recipe | start to answer, s, median (worst) | one image, ms, p50 / p95 / p99 "
        "| images/s, median (worst) | cores |",
        "|---|---|---|---|---|",
    ]
    for row in {row["recipe"]: row for row in results()}.values():
        starts, single, rates = (
            row[name] for name in ("start_to_answer_s", "latency_ms", "images_per_second")
        )
        lines.append(
            f"| {row['recipe']} | {starts['p50']:.2f} ({starts['p100']:.2f}) "
            f"| {single['p50']:.3f} / {single['p95']:.3f} / {single['p99']:.3f} "
            f"| {rates['p50']:,.0f} ({rates['p0']:,.0f}) | {row['cores']} |"
        )
    return "\n".join([*lines, "| target | 1 | p95 1 | 5,000 | |"])


def results() -> list[dict[str, Any]]:
    """Return the measurements so far."""
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    return [json.loads(line) for line in lines]


if __name__ == "__main__":
    main()
