"""The results of `benchmarks/device.sh`: JSON lines, and tables of them."""

import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

STARTED = time.perf_counter()
MARGIN = 0.003  # of accuracy: as near counts as the same
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
    for name in dict.fromkeys(row["recipe"] for row in rows if row["part"] == "tutorial"):
        _side_by_side(name, [row for row in rows if row.get("recipe") == name])
    for row in rows:
        if row["part"] not in ("engine", "full", "tutorial"):
            print(json.dumps(row))


def _side_by_side(name: str, rows: list[dict[str, Any]]) -> None:
    """Print how long an epoch takes on both sides, and whether they learn the same."""
    from scipy.stats import t, ttest_ind

    sides = {
        side: [row for row in rows if row["part"] == "tutorial" and row["side"] == side]
        for side in ("bare", "engine")
    }
    # The first row of each side was measured alone.
    paces = [
        statistics.median(found[0]["epochs"][1:] or found[0]["epochs"])
        for found in sides.values()
        if found
    ]
    print(f"\n{name}: s/epoch of model.fit and the engine: {', '.join(f'{p:.2f}' for p in paces)}")
    plain, ours = ([row["test_accuracy"] for row in found] for found in sides.values())
    if min(len(plain), len(ours)) < 2:
        return
    difference = statistics.mean(ours) - statistics.mean(plain)
    test = ttest_ind(ours, plain, equal_var=False)
    error = abs(difference / test.statistic) if test.statistic else 0.0
    reach = float(t.ppf(0.95, test.df)) * error
    low, high = difference - reach, difference + reach
    equal = "equivalent" if low > -MARGIN and high < MARGIN else "not shown to be equivalent"
    print(
        f"{name}: {len(plain)} and {len(ours)} seeds, accuracy {statistics.mean(plain):.2%} and "
        f"{statistics.mean(ours):.2%}, 90% interval of the difference {100 * low:+.2f} to "
        f"{100 * high:+.2f} points: {equal} within {100 * MARGIN:.1f}"
    )
