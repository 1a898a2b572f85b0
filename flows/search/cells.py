"""The cells of a grid and their results: means and standard deviations over the seeds."""

import csv
import io
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from flows.pages.rows import ModelRow
from pipeline.reports.markdown import Markdown, escape, row

SECONDS_PER_HOUR = 3600


@dataclass(frozen=True)
class Cell:
    """One training: a recipe of a dataset, with a seed."""

    dataset: str
    model: str
    seed: int

    def __str__(self) -> str:
        """Name it for people."""
        return f"{self.dataset} {self.model} seed {self.seed}"


@dataclass(frozen=True)
class Result:
    """The result of a cell: a row, or the reason why there is none."""

    cell: Cell
    row: ModelRow | None = None
    reason: str = ""


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation; None where there are too few values."""

    mean: float | None = None
    sd: float | None = None

    @classmethod
    def of(cls, values: Iterable[float | None]) -> "Spread":
        """Summarise the values that are not None."""
        known = [value for value in values if value is not None]
        if not known:
            return cls()
        return cls(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None)


@dataclass(frozen=True)
class Summary:
    """A recipe of a dataset over its seeds.

    Attributes:
        runs: how many ended with results.
        failed: how many did not.
        cached: how many DVC had already; time and cost are those of when they were trained.
        cost: the mean of a run, in the currency of the rate.
    """

    dataset: str
    model: str
    runs: int
    failed: int
    val_accuracy: Spread
    accuracy: Spread
    seconds: Spread
    cost: float | None
    cached: int
    run_ids: tuple[str, ...]

    @property
    def spreads(self) -> dict[str, Spread]:
        """What varies from seed to seed."""
        return {
            "val_accuracy": self.val_accuracy,
            "accuracy": self.accuracy,
            "training_seconds": self.seconds,
        }

    def as_row(self) -> dict[str, Any]:
        """Return it as plain values."""
        row: dict[str, Any] = {
            "dataset": self.dataset,
            "model": self.model,
            "runs": self.runs,
            "failed": self.failed,
            "cached": self.cached,
        }
        for name, spread in self.spreads.items():
            row |= {f"{name}_mean": spread.mean, f"{name}_sd": spread.sd}
        return {**row, "cost_mean": self.cost, "run_ids": " ".join(self.run_ids)}


def cells_of(
    datasets: Sequence[str],
    models: Sequence[str],
    seeds: Sequence[int],
    recipes_of: Callable[[str], Iterable[str]],
) -> tuple[list[Cell], list[str]]:
    """Return all trainings, and what is skipped because a dataset has no such recipe."""
    cells, skipped = [], []
    for dataset in dict.fromkeys(datasets):
        recipes = list(recipes_of(dataset))
        for model in dict.fromkeys(models):
            if model in recipes:
                cells += [Cell(dataset, model, seed) for seed in dict.fromkeys(seeds)]
            else:
                skipped.append(f"{dataset} has no {model}, only {', '.join(recipes)}")
    return cells, skipped


def summarise(results: Iterable[Result], cost_per_hour: float) -> list[Summary]:
    """Return a summary per dataset and model, in the order in which they come.

    Args:
        results: the results of all cells.
        cost_per_hour: the cost per hour of a worker.
    """
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.cell.dataset, result.cell.model), []).append(result)
    return [_summary(*names, group, cost_per_hour) for names, group in groups.items()]


def _summary(dataset: str, model: str, group: list[Result], cost_per_hour: float) -> Summary:
    rows = [result.row for result in group if result.row is not None]
    seconds = Spread.of(row.training_seconds for row in rows)
    hours = None if seconds.mean is None else seconds.mean / SECONDS_PER_HOUR
    return Summary(
        dataset=dataset,
        model=model,
        runs=len(rows),
        failed=len(group) - len(rows),
        val_accuracy=Spread.of(row.val_accuracy for row in rows),
        accuracy=Spread.of(row.accuracy for row in rows),
        seconds=seconds,
        cost=None if hours is None else hours * cost_per_hour,
        cached=sum(row.cached for row in rows),
        run_ids=tuple(row.run_id for row in rows),
    )


def metrics(summaries: Iterable[Summary]) -> dict[str, float]:
    """Return the numbers under names such as `digits.cnn.accuracy_mean`."""
    named: dict[str, float | None] = {}
    for one in summaries:
        prefix = f"{one.dataset}.{one.model}"
        named[f"{prefix}.runs"], named[f"{prefix}.cost_mean"] = one.runs, one.cost
        for name, spread in one.spreads.items():
            named[f"{prefix}.{name}_mean"], named[f"{prefix}.{name}_sd"] = spread.mean, spread.sd
    return {name: value for name, value in named.items() if value is not None}


def as_csv(summaries: Sequence[Summary]) -> str:
    """Return a line per dataset and model; what is not known is empty."""
    rows = [one.as_row() for one in summaries]
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def as_markdown(
    summaries: Sequence[Summary],
    failed: Sequence[Result],
    skipped: Sequence[str],
    link: Callable[[str], Markdown],
) -> str:
    """Return a table per dataset, then what failed and what was skipped.

    Args:
        summaries: best on the validation split first is how they are shown.
        failed: results without a row.
        skipped: pairs that do not exist.
        link: makes a link to an MLflow run of its id.
    """
    lines: list[str] = []
    for dataset in dict.fromkeys(one.dataset for one in summaries):
        lines += [
            f"# {escape(dataset)}",
            "",
            "| model | seeds | validation | test | training | cost a run | cached | MLflow runs |",
            "|---|---|---|---|---|---|---|---|",
        ]
        own = [one for one in summaries if one.dataset == dataset]
        own.sort(key=lambda one: one.val_accuracy.mean or 0, reverse=True)
        lines += [_line(one, link) for one in own] + [""]
    if failed:
        lines += ["# Without a result", ""]
        lines += [f"- {escape(f'{result.cell}: {result.reason}')}" for result in failed] + [""]
    lines += [f"- skipped: {escape(text)}" for text in skipped]
    return "\n".join(lines)


def _line(one: Summary, link: Callable[[str], Markdown]) -> str:
    seconds = "" if one.seconds.mean is None else f"{one.seconds.mean:.1f} s"
    cost = "" if one.cost is None else f"{one.cost:.4f}"
    accuracies = _percent(one.val_accuracy), _percent(one.accuracy)
    links = Markdown(" ".join(link(run_id) for run_id in one.run_ids))
    return row(one.model, one.runs, *accuracies, seconds, cost, one.cached, links)


def _percent(spread: Spread) -> str:
    if spread.mean is None:
        return ""
    return f"{spread.mean:.2%}" + ("" if spread.sd is None else f" ± {spread.sd:.2%}")
