"""The results of `benchmarks/device.sh`: JSON lines, and tables of them."""

import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

STARTED = time.perf_counter()
RESULTS = Path(os.environ.get("BENCH_RESULTS", ".benchmarks/device.jsonl"))


def say(part: str, **row: Any) -> None:
    """Print a line of JSON, and add it to the results."""
    line = json.dumps({"part": part, **row})
    print(line, flush=True)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(line + "\n")


def table() -> None:
    """Print the results as tables in Markdown."""
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    print("\n| recipe | how | build, s | fit, s | s/epoch | TFLOP/s | accuracy | in | cosine |")
    print("|---" * 9 + "|")
    for row in rows:
        if row["part"] in ("engine", "full"):
            pace, tflops = statistics.median(row["epochs"]), row.get("tflops", 0)
            print(
                f"| {row['recipe']} | {row.get('how', 'all epochs')}, seed {row.get('seed', 0)} "
                f"| {row['build']:.2f} | {row['fit']:.2f} | {pace:.3f} | {tflops:.0f} "
                f"| {row['test_accuracy']:.2%} | {row['precision']} | {row['agreement']} |"
            )
    sides = {(row["recipe"], row["side"]): row for row in rows if row["part"] == "tutorial"}
    print("\n| recipe | model.fit, s/epoch | engine, s/epoch | times faster |\n|---|---|---|---|")
    for name in dict.fromkeys(name for name, _ in sides):
        if (name, "bare") in sides and (name, "engine") in sides:
            slow, fast = (
                statistics.median(sides[name, side]["epochs"][1:] or sides[name, side]["epochs"])
                for side in ("bare", "engine")
            )
            print(f"| {name} | {slow:.2f} | {fast:.2f} | {slow / fast:.1f} |")
