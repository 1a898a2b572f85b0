"""Test accuracy and training time of the recipes of params.yaml, over seeds: `make accuracy`.

Each training runs in its own process and adds a line to `benchmarks/accuracy.jsonl`, so a run that
is interrupted loses one training. A training that has a line is not measured again; delete the line
to repeat it. At the end the table in README.md and docs/images/accuracy.png are updated.

    python -m benchmarks.accuracy                                    # all recipes, three seeds
    python -m benchmarks.accuracy fashion_mnist.cnn mnist.cnn        # some
    python -m benchmarks.accuracy cifar10_images.cnn_bn --phases 5 2 --seeds 1
    python -m benchmarks.accuracy --table                            # only print the table

On a GPU, with JAX: each process trains three times, cold and then warm.

    KERAS_BACKEND=jax python -m benchmarks.accuracy cifar10.fast --repeat 3
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import psutil

from benchmarks.accuracy_report import FIGURE, RECIPES, RESULTS, draw, results, table, update_readme
from pipeline.parallel import cores
from pipeline.params.params import load_params
from pipeline.tracking.describe import LIBRARIES, environment
from pipeline.workspace import Workspace

DATA = Path(os.environ.get("BENCHMARK_DATA", ".benchmarks"))
PACKAGES = (*LIBRARIES, "jax", "ai-edge-litert", "dvc", "great_expectations")


def main() -> None:
    """Measure recipes, print the table, and write it into the README."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipes", nargs="*", default=list(RECIPES), metavar="dataset.model")
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 (default: 3)")
    parser.add_argument("--phases", type=int, nargs="*", help="epochs of each phase instead")
    parser.add_argument("--repeat", type=int, default=1, help="trainings per process (default: 1)")
    parser.add_argument("--table", action="store_true", help="measure nothing, print the table")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--prepared", type=float, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child is not None:
        measure(given.recipes[0], given.child, given.phases, given.prepared, given.repeat)
        return
    if not given.table:
        for seed, recipe in product(range(given.seeds), given.recipes):
            if not _is_measured(recipe, seed, given.phases):
                _in_a_child(recipe, seed, given.repeat, given.phases)
    print(table())
    update_readme()
    draw(FIGURE)


def machine() -> dict[str, Any]:
    """Describe this machine."""
    here = environment()
    return {
        "cpu": here.hardware["cpu"],
        "cores": cores(),
        "load": os.getloadavg()[0],
        "python": here.python,
        "packages": {name: here.packages[name] for name in PACKAGES if name in here.packages},
    }


def _is_measured(recipe: str, seed: int, phases: list[int] | None) -> bool:
    known = {(row["recipe"], row["seed"], str(row["phases"])) for row in results()}
    return (recipe, seed, str(phases)) in known


def _in_a_child(recipe: str, seed: int, repeat: int, phases: list[int] | None) -> None:
    """Measure trainings in a new process."""
    dataset = recipe.split(".")[0]
    prepare(dataset)
    options = {
        "--child": seed,
        "--prepared": _seconds_to_prepare(dataset),
        "--repeat": repeat,
    }
    command = [sys.executable, "-m", "benchmarks.accuracy", recipe]
    command += [str(part) for pair in options.items() for part in pair]
    command += ["--phases", *map(str, phases)] if phases else []
    subprocess.run(command, check=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})


def prepare(dataset: str, data: Path = DATA) -> None:
    """Ingest, validate and split a dataset, once."""
    params, workspace = load_params(), Workspace(dataset, data)
    if (workspace.splits.path / "metadata.json").exists():
        return
    from pipeline.data.ingest import ingest
    from pipeline.data.preprocess import preprocess
    from pipeline.params.resolve import plan_dataset
    from pipeline.validation.validate import validate

    plan = plan_dataset(params.model_copy(update={"dataset": dataset}))
    raw = ingest(plan, workspace.raw.path)
    report = validate(raw, params.validation, workspace.validation, workspace.accepted)
    preprocess(raw, report, params.preprocess, workspace.splits.path, workspace.samples)


@cache
def _seconds_to_prepare(dataset: str) -> float:
    """Prepare the dataset again in another folder, in a new process, and return the seconds."""
    code = (
        "import sys, pathlib, benchmarks.accuracy as accuracy; "
        "accuracy.prepare(sys.argv[1], pathlib.Path(sys.argv[2]))"
    )
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-c", code, dataset, folder], check=True)
        return time.perf_counter() - start


def measure(name: str, seed: int, phases: list[int] | None, prepared: float, repeat: int) -> None:
    """Train one recipe with one seed, `repeat` times, and add a line to the results each time."""
    import keras

    from pipeline.models.build import build, steps_are_small
    from pipeline.training.device import choose
    from pipeline.training.engine import Data, fit

    dataset, model_name = name.split(".")
    params, splits = load_params(), Workspace(dataset, DATA).splits
    recipe = params.recipe(dataset, model_name)
    if phases:
        first, *rest = phases
        then = [p.model_copy(update={"epochs": n}) for p, n in zip(recipe.then, rest, strict=True)]
        recipe = recipe.model_copy(update={"epochs": first, "then": tuple(then)})
    info = splits.info
    device = choose("auto", small_steps=steps_are_small(recipe, info.image_shape))
    data = Data(
        splits.x("train"), splits.y("train"), splits.x("val"), splits.y("val"), info.class_names
    )
    start = psutil.Process().create_time()
    for number in range(repeat):
        model = build(recipe, info.image_shape, info.num_classes, seed)
        history = fit(model, recipe, data, seed=seed)
        seconds = time.time() - start
        predicted = model.predict(splits.x("test"), batch_size=512, verbose=0).argmax(axis=1)
        line = {
            "recipe": name,
            "seed": seed,
            "phases": phases,
            "parameters": model.count_params(),
            "test_accuracy": float((predicted == splits.y("test")).mean()),
            "val_accuracy": history.kept.val_accuracy,
            "epochs": len(history.epochs),
            "seconds": round(seconds, 1),
            "prepared": round(prepared, 1),
            "warm": number > 0,
            "backend": keras.backend.backend(),
            "trained_in": history.precision,
            "device": device.name,
            **machine(),
        }
        with RESULTS.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(line, flush=True)
        start = time.time()


if __name__ == "__main__":
    main()
