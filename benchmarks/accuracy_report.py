"""The accuracies that `benchmarks.accuracy` measured: as a table, in README.md, and as a figure."""

import json
import re
import statistics
from itertools import groupby
from pathlib import Path
from typing import Any

from pipeline.artifacts.figures import new_figure, save_figure
from pipeline.artifacts.files import atomic

RESULTS = Path(__file__).parent / "accuracy.jsonl"
README = Path(__file__).parent.parent / "README.md"
FIGURE = README.parent / "docs" / "images" / "accuracy.png"
# A description of each recipe, and the test accuracy that the authors of its architecture report.
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
# Measured only on request.
MORE = {
    "cifar10_images.cnn_bn": ("six convolutions with batch norm", "not stated"),
    "cifar10.fast": ("ours, on the exact pixels", ""),
}


def results() -> list[dict[str, Any]]:
    """Return the measurements so far."""
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    return [json.loads(line) for line in lines]


def _groups() -> dict[str, list[dict[str, Any]]]:
    """Return the measurements by recipe, in the order of `RECIPES`."""

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
    """Return the results as a Markdown table with a row per recipe."""
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


def update_readme() -> None:
    """Write the table between its two marks in README.md."""
    begin, end = "<!-- accuracies -->\n", "\n<!-- /table -->"
    text = README.read_text()
    found = re.search(f"{re.escape(begin)}.*?{re.escape(end)}", text, re.DOTALL)
    assert found
    with atomic(README) as part:
        part.write_text(text[: found.start()] + begin + table() + end + text[found.end() :])


def draw(path: Path) -> None:
    """Draw accuracy against time, a panel per dataset."""
    figure = new_figure(12, 3.8)
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
            beside = (0, -24 if place % 2 else 7)  # so that labels of close points do not overlap
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
    save_figure(figure, path, dpi=110)
