"""The checks as Great Expectations: one suite on the manifest, evaluated as a single batch."""

from collections.abc import Mapping
from typing import Any, Literal

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.execution_engine import PandasExecutionEngine
from great_expectations.expectations.expectation import BatchExpectation
from great_expectations.expectations.metrics.metric_provider import metric_value
from great_expectations.expectations.metrics.table_metric_provider import TableMetricProvider

from pipeline.artifacts.validation import CheckResult
from pipeline.validation.checks import BY_NAME, CHECKS, Check, ImageCheck, TableCheck, limits_of
from pipeline.validation.limits import Limits
from pipeline.validation.measures import MOST_OFFENDERS, Facts, Finding, addresses

Severity = Literal["error", "warning"]
FEW_VALUES = ("split", "class_name", "mode", "error", "dtype", "shape")
SEVERITIES: dict[Severity, str] = {"error": "critical", "warning": "warning"}


class CheckedNumber(TableMetricProvider):  # type: ignore[misc]
    """The finding of a `TableCheck` on the whole manifest."""

    metric_name = "table.finding"
    value_keys = ("check", "facts")

    @metric_value(engine=PandasExecutionEngine)  # type: ignore[untyped-decorator]
    def _pandas(
        cls,  # Great Expectations binds it as a class method
        execution_engine: Any,
        metric_domain_kwargs: dict[str, Any],
        metric_value_kwargs: dict[str, Any],
        metrics: dict[str, Any],
        runtime_configuration: dict[str, Any],
    ) -> Finding:
        manifest, _, _ = execution_engine.get_compute_domain(metric_domain_kwargs, "table")
        check = BY_NAME[metric_value_kwargs["check"]]
        assert isinstance(check, TableCheck)
        return check.measure(manifest, Facts.model_validate_json(metric_value_kwargs["facts"]))


class ExpectCheckToBeAtMost(BatchExpectation):  # type: ignore[misc]
    """Expect the number that a `TableCheck` observes to be at most `maximum`."""

    metric_dependencies = ("table.finding",)
    success_keys = ("check", "facts", "maximum")
    args_keys = ("check", "facts", "maximum")

    check: str
    facts: str  # JSON, because an expectation's arguments are compared and stored as such
    maximum: float

    def _validate(
        self, metrics: dict[str, Finding], runtime_configuration: Any, execution_engine: Any
    ) -> dict[str, Any]:
        finding = metrics["table.finding"]
        details = {"offenders": list(finding.offenders), "note": finding.note}
        return {
            "success": finding.observed <= self.maximum,
            "result": {"observed_value": finding.observed, "details": details},
        }


def evaluate(
    manifest: pd.DataFrame, facts: Facts, limits: Mapping[str, Limits]
) -> tuple[tuple[CheckResult, ...], Any]:
    """Evaluate every check that has a limit.

    Returns:
        One result per check and severity, in the order of `CHECKS`; and Great Expectations' own
        result, from which the Data Docs are made.
    """
    context = gx.get_context(mode="ephemeral")
    context.enable_analytics(False)
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("images").add_dataframe_asset("manifest")
    definition = asset.add_batch_definition_whole_dataframe("all")
    # Great Expectations hashes and copies the table, which is cheaper with categories.
    few = {name: "category" for name in FEW_VALUES}
    batch = definition.get_batch({"dataframe": manifest.astype(few)})
    suite = context.suites.add(gx.ExpectationSuite(name="images"))
    for check in CHECKS:
        for severity in SEVERITIES:
            limit = getattr(limits_of(check, limits), severity)
            if limit is not None:
                suite.add_expectation(_expectation(check, severity, limit, facts))
    result = batch.validate(
        suite,
        result_format={
            "result_format": "SUMMARY",
            "partial_unexpected_count": MOST_OFFENDERS,
            "unexpected_index_column_names": ["split", "file"],
        },
    )
    return tuple(_read(one) for one in _in_order(result.results)), result


def _expectation(check: Check, severity: Severity, limit: float, facts: Facts) -> Any:
    common = {
        "severity": SEVERITIES[severity],
        "description": f"{check.name}: {check.meaning}, at most {show(check, limit)} ({severity})",
        "meta": {"check": check.name, "severity": severity, "limit": limit},
    }
    if isinstance(check, ImageCheck):
        expectation = getattr(gxe, check.expectation)
        # Slightly less, so that a limit of 0.41 lets 41 of 100 pass despite rounding.
        mostly = max(0.0, 1 - limit - 1e-12)
        return expectation(column=check.column, mostly=mostly, **check.arguments(facts), **common)
    return ExpectCheckToBeAtMost(
        check=check.name, facts=facts.model_dump_json(), maximum=limit, **common
    )


def _in_order(results: Any) -> list[Any]:
    """Sort in the order of `CHECKS`, errors first: the suite groups them by column."""
    names, severities = list(BY_NAME), list(SEVERITIES)

    def rank(one: Any) -> tuple[int, int]:
        meta = one.expectation_config.meta
        return names.index(meta["check"]), severities.index(meta["severity"])

    return sorted(results, key=rank)


def _read(one: Any) -> CheckResult:
    """Turn one of Great Expectations' results into ours."""
    meta = one.expectation_config.meta
    check, limit = BY_NAME[meta["check"]], meta["limit"]
    if "observed_value" not in one.result and "unexpected_count" not in one.result:
        # Not the fault of the data: the entry of the check is wrong.
        raise RuntimeError(f"check {check.name} could not be evaluated: {one.exception_info}")
    finding = _finding(one.result)
    note = f" ({finding.note})" if finding.note else ""
    advice = f"; {check.advice}" if check.advice and not one.success else ""
    return CheckResult(
        check=check.name,
        severity=meta["severity"],
        passed=bool(one.success),
        observed=finding.observed,
        limit=limit,
        message=f"{show(check, finding.observed)}, at most {show(check, limit)} allowed: "
        f"{check.meaning}{note}{advice}",
        files=finding.offenders,
    )


def _finding(result: dict[str, Any]) -> Finding:
    if "details" in result:
        details = result["details"]
        return Finding(result["observed_value"], tuple(details["offenders"]), details["note"])
    counted = result["element_count"] - result["missing_count"]
    rows = pd.DataFrame(result["partial_unexpected_index_list"] or [], columns=["split", "file"])
    return Finding(result["unexpected_count"] / max(1, counted), tuple(addresses(rows)))


def show(check: Check, number: float) -> str:
    """Write a number in the unit of the check."""
    return f"{100 * number:.3g}%" if check.unit == "share" else f"{number:.4g}"
