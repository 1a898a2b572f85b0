"""Test accuracy and training time of the recipes of params.yaml, over seeds: `make accuracy`.

Each training is a process of its own and adds a line to `benchmarks/accuracy.jsonl`: a run that is
cut short loses one training. What has a line is not measured again; delete the line to do so. At
the end the table in README.md is written anew, and docs/images/accuracy.png drawn.

    python -m benchmarks.accuracy                                    # all recipes, three seeds
    python -m benchmarks.accuracy fashion_mnist.cnn mnist.cnn        # some
    python -m benchmarks.accuracy cifar10_images.cnn_bn --phases 5 2 --seeds 1
    python -m benchmarks.accuracy --table                            # the table of what is there

On a GPU, with JAX: each process trains three times, cold and then warm.

    KERAS_BACKEND=jax python -m benchmarks.accuracy cifar10.fast --repeat 3
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from functools import cache
from itertools import groupby, product
from pathlib import Path
from typing import Any

import psutil

from pipeline.artifacts.files import atomic
from pipeline.params.params import load_params
from pipeline.tracking.describe import LIBRARIES, environment
from pipeline.workspace import Workspace

RESULTS = Path(__file__).parent / "accuracy.jsonl"
README = Path(__file__).parent.parent / "README.md"
PICTURE = README.parent / "docs" / "images" / "accuracy.png"
DATA = Path(os.environ.get("BENCHMARK_DATA", ".benchmarks"))
# What a recipe is, and the test accuracy that the authors of its architecture report.
RECIPES: dict[str, tuple[str, str]] = {
    "digits.dense": ("two hidden layers, dropout", ""),
    "digits.cnn": ("three convolutions, augmentation", ""),
    "mnist.dense": ("two hidden layers, dropout", ""),
    "mnist.cnn": ("three convolutions", "99.14%"),
    "mnist.fast": ("ours", ""),
    "mnist.best": ("ours", ""),
    "fashion_mnist.dense": ("five hidden layers, 16 to 256", "87.1%"),
    "fashion_mnist.cnn": ("four strided convolutions", "90.7%"),
    "fashion_mnist.fast": ("ours", ""),
    "fashion_mnist.best": ("ours", ""),
    "cifar10_images.dense": ("two hidden layers of 512", "43.7%"),
    "cifar10_images.cnn": ("two convolutions, max-norm, dropout", "69.4%"),
    "cifar10_images.fast": ("ours", ""),
    "cifar10_images.best": ("ours", ""),
}
PACKAGES = (*LIBRARIES, "jax", "ai-edge-litert", "dvc", "great_expectations")
# Measured where somebody asks for it.
MORE = {
    "cifar10_images.cnn_bn": ("six convolutions with batch norm", "not stated"),
    "cifar10.fast": ("ours, on the exact pixels", ""),
}


def main() -> None:
    """Measure what is asked for, print the table, and write it into the README."""
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
    _into_the_readme()
    draw(PICTURE)


def results() -> list[dict[str, Any]]:
    """Return what was measured so far."""
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    return [json.loads(line) for line in lines]


def machine() -> dict[str, Any]:
    """Return what it was measured on."""
    here = environment()
    return {
        "cpu": here.hardware["cpu"],
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "python": here.python,
        "packages": {name: here.packages[name] for name in PACKAGES if name in here.packages},
    }


def _is_measured(recipe: str, seed: int, phases: list[int] | None) -> bool:
    known = {(row["recipe"], row["seed"], str(row["phases"])) for row in results()}
    return (recipe, seed, str(phases)) in known


def _in_a_child(recipe: str, seed: int, repeat: int, phases: list[int] | None) -> None:
    """Measure trainings in a process of their own."""
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
    """Do all of that once more, elsewhere, in a process of its own."""
    code = (
        "import sys, pathlib, benchmarks.accuracy as accuracy; "
        "accuracy.prepare(sys.argv[1], pathlib.Path(sys.argv[2]))"
    )
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-c", code, dataset, folder], check=True)
        return time.perf_counter() - start


def measure(name: str, seed: int, phases: list[int] | None, prepared: float, repeat: int) -> None:
    """Train one recipe with one seed, so often, and add the lines to the results."""
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


def _groups() -> dict[str, list[dict[str, Any]]]:
    """Return the measurements of each recipe, in the order of `RECIPES`."""

    def key(row: dict[str, Any]) -> tuple[str, str]:
        phases = row["phases"]
        how = [f"{' + '.join(map(str, phases))} epochs"] if phases else []
        how += [f"{row['backend']} on {row['device']}"] if row["device"] != row["cpu"] else []
        how += ["warm"] if row["warm"] else []
        return row["recipe"], ", ".join(how)

    known = [*RECIPES, *MORE]
    rows = sorted(
        (row for row in results() if row["recipe"] in known),
        key=lambda row: (known.index(row["recipe"]), key(row)[1]),
    )
    return {
        f"`{recipe.replace('_images', '')}`" + (f", {how}" if how else ""): list(group)
        for (recipe, how), group in groupby(rows, key)
    }


def _mean(rows: list[dict[str, Any]], *keys: str) -> float:
    return float(statistics.mean(sum(row[key] for key in keys) for row in rows))


def table() -> str:
    """Return the results as a Markdown table: a row per recipe, over its seeds."""
    lines = [
        "| recipe | what it is | parameters | test accuracy (lowest to highest) | seeds "
        "| reported | epochs | seconds |",
        "|---" * 8 + "|",
    ]
    for name, rows in _groups().items():
        right = [100 * row["test_accuracy"] for row in rows]
        what, reported = (RECIPES | MORE)[rows[0]["recipe"]]
        spread = f" ({min(right):.2f} to {max(right):.2f})" if len(rows) > 1 else ""
        lines.append(
            f"| {name} | {what} | {rows[0]['parameters']:,} "
            f"| {statistics.mean(right):.2f}%{spread} | {len(rows)} | {reported} "
            f"| {rows[0]['epochs']} | {_mean(rows, 'seconds', 'prepared'):.0f} |"
        )
    return "\n".join(lines)


def _into_the_readme() -> None:
    """Put the table between its two marks."""
    begin, end = "<!-- accuracies -->\n", "\n<!-- /table -->"
    text = README.read_text()
    found = re.search(f"{re.escape(begin)}.*?{re.escape(end)}", text, re.DOTALL)
    assert found
    with atomic(README) as part:
        part.write_text(text[: found.start()] + begin + table() + end + text[found.end() :])


def draw(path: Path) -> None:
    """Draw accuracy against time, a panel per dataset."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    groups = _groups()
    datasets = list(dict.fromkeys(rows[0]["recipe"].split(".")[0] for rows in groups.values()))
    ticks = {10: "10 s", 60: "1 min", 300: "5 min", 1800: "30 min"}
    for number, dataset in enumerate(datasets, start=1):
        axes = figure.add_subplot(
            *(1, len(datasets), number), title=dataset.replace("_images", ""), xscale="log"
        )
        here = [rows for rows in groups.values() if rows[0]["recipe"].split(".")[0] == dataset]
        for place, rows in enumerate(here):
            model = rows[0]["recipe"].split(".")[1]
            at = _mean(rows, "seconds", "prepared"), 100 * _mean(rows, "test_accuracy")
            axes.plot(*at, "o", color="tab:orange" if model in ("fast", "best") else "tab:blue")
            label = f"{model}\n{at[1]:.2f}%"
            beside = (0, -24 if place % 2 else 7)  # two at one place stay legible
            axes.annotate(label, at, beside, textcoords="offset points", ha="center", fontsize=8)
        axes.set_xlim(5, 3600)
        axes.set_xticks(list(ticks), list(ticks.values()), fontsize=8)
        axes.minorticks_off()
        axes.margins(y=0.25)
        axes.set_ylim(top=min(axes.get_ylim()[1], 101))  # no accuracy is above 100%
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}%")
        axes.grid(alpha=0.3)
    figure.supylabel("test accuracy", fontsize=10)
    figure.supxlabel("time, from the raw files to the trained model", fontsize=10)
    with atomic(path) as part:
        figure.savefig(part, format="png", dpi=110)


if __name__ == "__main__":
    main()
