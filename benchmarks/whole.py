"""The whole pipeline against two training scripts: part of `make bench`.

In a clone: `dvc repro` of fashion_mnist with dense and cnn, from the raw files to the registered
model; then with nothing changed; then with one recipe changed. Alternates with the two scripts of
`benchmarks.bare` one after the other, with as many epochs. Adds a line per run to
`benchmarks/whole.jsonl`.

    DATASET_MIRROR=… python -m benchmarks.whole --runs 3
    python -m benchmarks.whole --table
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from typer.main import get_command

from benchmarks.accuracy import DATA, machine, prepare
from benchmarks.speed import QUIET, child
from flows.forms.request import Request
from pipeline.artifacts.project import PARAMS_FILE
from pipeline.cli import app
from pipeline.params.params import load_params
from pipeline.workspace import Workspace

RESULTS = Path(__file__).parent / "whole.jsonl"
DATASET, MODELS = "fashion_mnist", ("dense", "cnn")
STAGE = re.compile(r"Running stage '([^']+)'")
AGAIN = ("nothing changed", "one recipe changed")
# The way the stages import TensorFlow.
IMPORT = "import gc; gc.set_threshold(200_000); import tensorflow; gc.freeze()"
COMMANDS = {
    "pipeline --help": ["pipeline", "--help"],
    **{
        f"pipeline {name} --help": ["pipeline", name, "--help"]
        for name in get_command(app).commands  # type: ignore[attr-defined]
    },
    "pipeline resolve": ["pipeline", "resolve"],
    "dvc status": ["dvc", "status"],
    "import tensorflow": [sys.executable, "-c", IMPORT],
}


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=1, help="runs of each (default: 1)")
    parser.add_argument("--table", action="store_true", help="only print the table")
    given = parser.parse_args()
    if not given.table:
        prepare(DATASET)
        for number in range(given.runs):
            parts = (_scripts, _pipeline) if number % 2 == 0 else (_pipeline, _scripts)
            line = {"machine": machine()}
            for part in parts:
                line |= part()
            with RESULTS.open("a") as file:
                file.write(json.dumps(line) + "\n")
    print(table())


def _scripts() -> dict[str, Any]:
    """Time both scripts as processes, one after the other."""
    arrays, recipes = Workspace(DATASET, DATA).splits.path, load_params().recipes[DATASET]
    runs = {
        model: child("benchmarks.bare", f"{DATASET}.{model}", arrays, recipes[model].epochs, 0)
        for model in MODELS
    }
    return {"scripts": {model: run["process"] for model, run in runs.items()}}


def _pipeline() -> dict[str, Any]:
    """Time the pipeline in a clone, with a new cache and store."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "-q", ".", str(clone)], check=True)
        Request(dataset=DATASET, models=MODELS).apply(clone / PARAMS_FILE)
        cold, stages = _repro(clone)
        epochs = [_training(clone, model) for model in MODELS]
        nothing, _ = _repro(clone)
        Request(overrides={"dense": {"epochs": 9}}).apply(clone / PARAMS_FILE)
        changed, _ = _repro(clone)
        starts = {name: _seconds(command, clone) for name, command in COMMANDS.items()}
    return {
        "cold": cold,
        "stages": stages,
        "training": dict(zip(MODELS, epochs, strict=True)),
        "nothing changed": nothing,
        "one recipe changed": changed,
        "start-up": starts,
    }


def _environment(clone: Path) -> dict[str, str]:
    # With PYTHONDONTWRITEBYTECODE Python would compile each module in each process.
    dropped = ("MLFLOW_", "DVC_", "PREFECT_", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in QUIET.items() if not name.startswith(dropped)}
    return {**kept, "PYTHONPATH": str(clone), "DVC_NO_ANALYTICS": "1"}


def _repro(clone: Path) -> tuple[float, dict[str, float]]:
    """Run `dvc repro`; return its seconds, and those of each stage until the next one starts."""
    start = time.perf_counter()
    process = subprocess.Popen(
        ["dvc", "repro"],
        cwd=clone,
        env=_environment(clone),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    begun, lines = [("dvc before", start)], []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if found := STAGE.search(line):
            begun.append((found[1], time.perf_counter()))
    if process.wait():
        sys.exit("error: dvc repro failed:\n" + "".join(lines[-30:]))
    end = time.perf_counter()
    ends = [*(at for _, at in begun[1:]), end]
    return end - start, {name: to - at for (name, at), to in zip(begun, ends, strict=True)}


def _training(clone: Path, model: str) -> float:
    run = json.loads((clone / "models" / DATASET / model / "run.json").read_text())
    return float(run["training_seconds"])


def _seconds(command: list[str], clone: Path) -> float:
    """Return the shortest time of three calls."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run(command, cwd=clone, env=_environment(clone), check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return min(times)


def table() -> str:
    """Return the medians over all runs as Markdown tables."""
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]

    def median(value: Any) -> float:
        return float(statistics.median(value(row) for row in rows))

    scripts = median(lambda row: sum(row["scripts"].values()))
    cold = median(lambda row: row["cold"])
    share = median(lambda row: row["cold"] / sum(row["scripts"].values()))
    training = median(lambda row: sum(row["training"].values()))
    importing = median(lambda row: row["start-up"]["import tensorflow"])
    imports = sum(
        name.split("@")[0] in ("train", "evaluate", "register") for name in rows[-1]["stages"]
    )
    nothing, changed = (median(lambda row, key=key: row[key]) for key in AGAIN)
    lines = [
        f"| fashion_mnist, dense and cnn, {len(rows)} runs | seconds | target |",
        "|---|---|---|",
        f"| both scripts, one after the other | {scripts:.1f} | |",
        f"| `dvc repro`, cold | {cold:.1f} | |",
        f"| the same as a share of the scripts | **{share:.2f}** | 0.6 |",
        f"| of that, training | {training:.1f} | |",
        f"| of that, {imports} imports of TensorFlow | {imports * importing:.1f} | |",
        f"| of that, the rest | **{cold - training - imports * importing:.1f}** | 20 |",
        f"| `dvc repro`, nothing changed | **{nothing:.1f}** | 2 |",
        f"| `dvc repro`, one recipe changed | {changed:.1f} | |",
        "",
        "| stage | seconds |",
        "|---|---|",
        *(
            f"| {name} | {median(lambda row, name=name: row['stages'][name]):.1f} |"
            for name in rows[-1]["stages"]
        ),
        "",
        "| command | seconds to its end, the least of three |",
        "|---|---|",
        *(
            f"| `{name}` | {median(lambda row, name=name: row['start-up'][name]):.2f} |"
            for name in rows[-1]["start-up"]
        ),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
