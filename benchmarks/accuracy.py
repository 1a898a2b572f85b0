"""Test accuracy of the recipes of params.yaml, over seeds: `make accuracy`.

Each training is a process of its own and adds a line to `benchmarks/accuracy.jsonl`: a run that is
cut short loses one training. What has a line is not measured again; delete the line to do so.

    python -m benchmarks.accuracy                                    # all recipes, three seeds
    python -m benchmarks.accuracy fashion_mnist.cnn mnist.cnn        # some
    python -m benchmarks.accuracy cifar10_images.cnn_bn --phases 5 2 --seeds 1
    python -m benchmarks.accuracy --table                            # the table of what is there
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from pipeline.params import load_params
from pipeline.workspace import Workspace

RESULTS = Path(__file__).parent / "accuracy.jsonl"
DATA = Path(os.environ.get("BENCHMARK_DATA", ".benchmarks"))
DEFAULT = {
    "digits": ("dense", "cnn"),
    "fashion_mnist": ("dense", "cnn", "fast"),
    "mnist": ("dense", "cnn", "fast"),
    "cifar10_images": ("dense", "cnn", "fast"),
}


def main() -> None:
    """Measure what is asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    recipes = [f"{dataset}.{model}" for dataset, models in DEFAULT.items() for model in models]
    parser.add_argument("recipes", nargs="*", default=recipes, metavar="dataset.model")
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 (default: 3)")
    parser.add_argument("--phases", type=int, nargs="*", help="epochs of each phase instead")
    parser.add_argument("--table", action="store_true", help="measure nothing, print the table")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        measure(arguments.recipes[0], arguments.child, arguments.phases)
        return
    if not arguments.table:
        for seed in range(arguments.seeds):
            for recipe in arguments.recipes:
                _in_a_child(recipe, seed, arguments.phases)
    print(table())


def results() -> list[dict[str, object]]:
    """Return what was measured so far."""
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    return [json.loads(line) for line in lines]


def _in_a_child(recipe: str, seed: int, phases: list[int] | None) -> None:
    """Measure one training in a process of its own, unless it is there already."""
    if any((r["recipe"], r["seed"], r["phases"]) == (recipe, seed, phases) for r in results()):
        return
    prepare(recipe.split(".")[0])
    more = ["--phases", *map(str, phases)] if phases else []
    command = [sys.executable, "-m", "benchmarks.accuracy", recipe, "--child", str(seed), *more]
    subprocess.run(command, check=True)


def prepare(dataset: str) -> None:
    """Ingest, validate and split a dataset, once."""
    params, workspace = load_params(), Workspace(dataset, DATA)
    if (workspace.splits.path / "metadata.json").exists():
        return
    from pipeline.ingest import ingest
    from pipeline.preprocess import preprocess
    from pipeline.resolve import plan_dataset
    from pipeline.validate import validate

    plan = plan_dataset(params.model_copy(update={"dataset": dataset}))
    raw = ingest(plan, workspace.raw.path)
    report = validate(raw, params.validation, workspace.validation, workspace.accepted)
    preprocess(raw, report, params.preprocess, workspace.splits.path, workspace.samples)


def measure(name: str, seed: int, phases: list[int] | None) -> None:
    """Train one recipe with one seed and add its line to the results."""
    from pipeline.engine import Data, fit
    from pipeline.models import build

    dataset, model_name = name.split(".")
    params, splits = load_params(), Workspace(dataset, DATA).splits
    recipe = params.recipe(dataset, model_name)
    if phases:
        first, *rest = phases
        then = [p.model_copy(update={"epochs": n}) for p, n in zip(recipe.then, rest, strict=True)]
        recipe = recipe.model_copy(update={"epochs": first, "then": tuple(then)})
    info = splits.info
    model = build(recipe, info.image_shape, info.num_classes, seed)
    start = time.perf_counter()
    data = Data(
        splits.x("train"), splits.y("train"), splits.x("val"), splits.y("val"), info.class_names
    )
    history = fit(model, recipe, data, seed=seed)
    seconds = time.perf_counter() - start
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
        "cores": len(os.sched_getaffinity(0)),
    }
    with RESULTS.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(line, flush=True)


def table() -> str:
    """Return the results as a Markdown table: a row per recipe, over its seeds."""
    groups: dict[str, list[dict[str, object]]] = {}
    for row in results():
        phases = row["phases"]
        key = f"{row['recipe']}" + (f" ({' + '.join(map(str, phases))} epochs)" if phases else "")
        groups.setdefault(key, []).append(row)
    lines = [
        "| recipe | parameters | test accuracy, mean (range) | seeds | epochs | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for name, rows in groups.items():
        accuracies = [100 * float(str(row["test_accuracy"])) for row in rows]
        seconds = statistics.mean(float(str(row["seconds"])) for row in rows)
        lines.append(
            f"| {name} | {rows[0]['parameters']:,} | {statistics.mean(accuracies):.2f}% "
            f"({min(accuracies):.2f} to {max(accuracies):.2f}) | {len(rows)} "
            f"| {rows[0]['epochs']} | {seconds:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
