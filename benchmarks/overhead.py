"""The overhead of the flow over the stages: `make overhead`, while `make stack` is up.

Alternates between a run of `train/cpu` on a worker and the commands of the same stages one after
another, each time with a new seed, so that two models are trained, evaluated and registered. Then
requests the same run again, whose results DVC has cached. Prints a table and adds a line per run to
`benchmarks/overhead.jsonl`.

    eval "$(make --silent stack-env)"; python -m benchmarks.overhead --runs 3
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from prefect.client.orchestration import get_client
from rich.console import Console
from rich.table import Table

from flows.execution.checkout import worktree
from flows.execution.job import steps
from flows.execution.stages import environment
from flows.forms.request import Request
from pipeline.artifacts.project import DATA_STAGES, PARAMS_FILE
from pipeline.tracking.describe import environment as machine

RESULTS = Path(__file__).parent / "overhead.jsonl"
MODELS = ("dense", "cnn")
# Run in both before the measurement: a new seed changes nothing in these stages.
DATA = DATA_STAGES[1:]


def main() -> None:
    """Measure, record and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=3, help="runs of each kind (default: 3)")
    runs = parser.parse_args().runs
    if not os.environ.get("PREFECT_API_URL"):
        sys.exit('error: PREFECT_API_URL is not set; make stack, then eval "$(make stack-env)"')
    rows = []
    with tempfile.TemporaryDirectory() as folder, worktree("HEAD", "overhead") as checkout:
        given = environment(checkout, {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"})
        bare(checkout.root, given, random.randrange(2**31))
        flow(random.randrange(2**31))
        for _ in range(runs):
            seed = random.randrange(2**31)
            row = {"stages": bare(checkout.root, given, seed)}
            row["flow"], row["asked to done"] = flow(seed)
            row["cached flow"], row["cached, asked to done"] = flow(seed)
            rows.append(row)
    entry = {"runs": rows, "machine": machine().model_dump(exclude={"packages"})}
    with RESULTS.open("a") as file:
        file.write(json.dumps(entry) + "\n")
    Console().print(table(rows))


def bare(root: Path, given: dict[str, str], seed: int) -> float:
    """Run the stages as commands; return the seconds of those that depend on the seed."""
    Request(dataset="digits", models=MODELS, seed=seed).apply(root / PARAMS_FILE)
    seconds = 0.0
    for step in steps(MODELS, "register"):
        stage, _, model = step.partition("@")
        if stage in DATA and (root / "data/processed/digits").exists():
            continue
        if stage == "train":
            shutil.rmtree(root / "models/digits" / model, ignore_errors=True)
        started = time.perf_counter()
        command = ["pipeline", stage, *([model] if model else [])]
        subprocess.run(command, cwd=root, env=given, check=True, capture_output=True)
        seconds += time.perf_counter() - started
    return seconds


def flow(seed: int) -> tuple[float, float]:
    """Run the deployment; return its run time, and the seconds from the request to the end."""
    parameters: dict[str, Any] = {"dataset": "digits", "models": list(MODELS), "seed": seed}
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("train/cpu")
        started = time.perf_counter()
        run = client.create_flow_run_from_deployment(deployment.id, parameters=parameters)
        while not (state := client.read_flow_run(run.id).state) or not state.is_final():
            time.sleep(0.1)
        seconds = time.perf_counter() - started
        ended = client.read_flow_run(run.id)
    if not state.is_completed():
        sys.exit(f"error: the run ended {state.name}: {state.message}")
    return ended.total_run_time.total_seconds(), seconds


def table(rows: list[dict[str, float]]) -> Table:
    """Return a table of the medians, and of the overhead."""
    medians = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    medians["added to a run"] = statistics.median(row["flow"] - row["stages"] for row in rows)
    shown = Table(title=f"digits, two models, median of {len(rows)}, seconds")
    for name in ("", "median", "from", "to"):
        shown.add_column(name, justify="left" if not name else "right")
    for name, median in medians.items():
        values = [row.get(name, row["flow"] - row["stages"]) for row in rows]
        shown.add_row(name, *(f"{value:.1f}" for value in (median, min(values), max(values))))
    return shown


if __name__ == "__main__":
    main()
