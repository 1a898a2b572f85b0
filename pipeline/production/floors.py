"""The floors of metrics, as rules of the gate: one for each entry of `METRICS` that has a floor."""

from typing import TYPE_CHECKING

from pipeline.errors import ParamsError, did_you_mean
from pipeline.evaluation.metric import Metric
from pipeline.evaluation.metrics import FLOORS
from pipeline.production.findings import Found
from pipeline.production.rules import Rule, Thresholds

if TYPE_CHECKING:
    from pipeline.production.decision import Candidate, Case


def floors() -> tuple[Rule, ...]:
    """Return a rule for each metric that has a floor, in the order of `METRICS`."""
    return tuple(_rule(key, metric) for key, metric in FLOORS.items())


def check_floors(thresholds: Thresholds) -> None:
    """Refuse a floor of a metric that has none, and one that can never be met.

    Raises:
        ParamsError: it says what was received and what is allowed.
    """
    for key, limit in thresholds.floors.items():
        if key not in FLOORS:
            raise ParamsError(
                f"promotion.floors.{key}: unknown metric; allowed: {', '.join(FLOORS)}"
                f"{did_you_mean(key, list(FLOORS))}"
            )
        share = FLOORS[key].unit in ("share", "probability")
        if limit is not None and (limit > 1 if share else limit == 0):
            allowed = "from 0 to 1" if share else "more than 0"
            raise ParamsError(
                f"promotion.floors.{key}: received {limit:g}; allowed: {allowed}, or null"
            )


def _rule(key: str, metric: Metric) -> Rule:
    higher = metric.better == "higher"

    def find(case: "Case", thresholds: Thresholds) -> Found | None:
        floor, value = thresholds.floors.get(key), case.candidate.metrics.get(key)
        if floor is None:
            if value is None or not higher:
                return None
            floor = 0.0  # without a floor the value is shown
        words = {"metric": _label(metric, case.candidate)}
        if value is None:
            return Found(False, "unknown", floor, {**words, "number": "unknown"})
        passed = value >= floor if higher else value <= floor
        return Found(passed, value, floor, {**words, "number": f"{value:.4g}"})

    limit = "at least" if higher else "at most"
    return Rule(
        key,
        question=f"{metric.label}: {limit} this much?",
        passed="{metric} is {number}",
        failed=f"{{metric}} is {{number}}; {limit} {{limit:g}} is required",
        find=find,
        thresholds=(f"floors.{key}",),
    )


def _label(metric: Metric, candidate: "Candidate") -> str:
    """Return the label of a metric, and which class or slice is the worst where it is about one."""
    worst = ""
    if metric.name == "slice_accuracy_lowest":
        worst = candidate.worst_slice
    elif metric.name == "recall_lowest" and candidate.recalls:
        worst = min(candidate.recalls, key=lambda name: (candidate.recalls[name], name))
    return f"{metric.label} ({worst})" if worst else metric.label
