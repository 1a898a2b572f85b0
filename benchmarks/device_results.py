"""The results of `benchmarks/device.sh`: JSON lines, and tables of them."""

import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

STARTED = time.perf_counter()
RESULTS = Path(os.environ.get("BENCH_RESULTS", Path(__file__).parent / "device.jsonl"))
MARGIN = 0.003  # of accuracy: as near counts as the same
Row = dict[str, Any]


def say(part: str, **row: Any) -> None:
    """Print a line of JSON, and add it to the results."""
    line = json.dumps({"part": part, **row})
    print(line, flush=True)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(line + "\n")


def table() -> str:
    """Return the results as Markdown."""
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    of = {part: [row for row in rows if row["part"] == part] for part in {r["part"] for r in rows}}
    lines = []
    for row in of.get("check", []):
        lines.append(f"{row['device']}, JAX {row['jax']}, Keras {row['keras']}.")
    for row in of.get("roof", []):
        lines.append(
            f"A large matrix product reaches {row['bfloat16_tflops']:.0f} TFLOP/s in `bfloat16` "
            f"and {row['float32_tflops']:.0f} in `float32`."
        )
    lines += ["", "| recipe | how | build, s | fit, s | s/epoch | TFLOP/s | accuracy | GiB |"]
    lines += ["|---" * 8 + "|"]
    for row in (*of.get("engine", []), *of.get("full", [])):
        lines.append(
            f"| {row['recipe']} | {row.get('how', 'all epochs')}, seed {row.get('seed', 0)} "
            f"| {row['build']:.2f} | {row['fit']:.2f} | {statistics.median(row['epochs']):.3f} "
            f"| {row.get('tflops', 0):.0f} | {row['test_accuracy']:.2%} | {row['peak_gib']:.1f} |"
        )
    tutorials = of.get("tutorial", [])
    names = dict.fromkeys(row["recipe"] for row in tutorials)
    lines += ["", "| recipe | `model.fit`, s/epoch | engine, s/epoch | times faster | accuracy |"]
    lines += ["|---" * 5 + "|"]
    lines += [_side_by_side(name, [r for r in tutorials if r["recipe"] == name]) for name in names]
    for row in of.get("anchor", []):
        lines.append(f"\nairbench94: {' '.join(row['line'].replace('|', ' ').split())}")
    for row in of.get("backbone", []):
        lines.append(
            f"\nMobileNetV2 0.35, {row['side']} pixels, {row['precision']}: "
            f"{row['images_per_second']:,.0f} images a second"
        )
    for row in of.get("profile", []):
        most = ", ".join(f"{ms:.2f} {name}" for name, ms in list(row["kernels"].items())[:5])
        lines.append(
            f"\nA step of `wide`: {row['ms_per_step']:.2f} ms on the GPU, of these {most}."
        )
    for row in of.get("tests", []):
        lines.append(f"\nTests of the JAX backend: {row['last']}")
    return "\n".join(lines)


def _side_by_side(name: str, rows: list[Row]) -> str:
    """Say how long an epoch takes on both sides, and whether they learn the same."""
    bare, ours = ([row for row in rows if row["side"] == side] for side in ("bare", "engine"))
    # The first row of each side was measured alone.
    slow, fast = (
        statistics.median(found[0]["epochs"][1:] or found[0]["epochs"]) if found else float("nan")
        for found in (bare, ours)
    )
    return f"| {name} | {slow:.2f} | {fast:.2f} | {slow / fast:.1f} | {_equivalence(bare, ours)} |"


def _equivalence(bare: list[Row], ours: list[Row]) -> str:
    """Test whether the accuracies differ by less than the margin: two one-sided tests."""
    from scipy.stats import t, ttest_ind

    plain, fast = ([row["test_accuracy"] for row in rows] for rows in (bare, ours))
    means = [f"{statistics.mean(found):.2%}" if found else "?" for found in (plain, fast)]
    said = f"{means[0]} and {means[1]} ({len(plain)} and {len(fast)} seeds)"
    if min(len(plain), len(fast)) < 2:
        return said
    difference = statistics.mean(fast) - statistics.mean(plain)
    test = ttest_ind(fast, plain, equal_var=False)
    error = abs(difference / test.statistic) if test.statistic else 0.0
    reach = float(t.ppf(0.95, test.df)) * error
    low, high = difference - reach, difference + reach
    equal = "equivalent" if low > -MARGIN and high < MARGIN else "not shown to be equivalent"
    interval = f"{100 * low:+.2f} to {100 * high:+.2f} points"
    return f"{said}, 90% interval of the difference {interval}: {equal}"
