"""validate: the raw dataset -> manifest, Data Docs, report; a dataset that fails stops here."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.table import Table
from rich.text import Text

from pipeline.artifacts.datasets import RawDataset
from pipeline.artifacts.validation import CheckResult, ValidationReport
from pipeline.errors import ValidationFailed
from pipeline.validation.accepted import Accepted, AcceptedVersion, content_digest
from pipeline.validation.checks import check_names
from pipeline.validation.data_docs import save_data_docs
from pipeline.validation.expectations import evaluate
from pipeline.validation.limits import Limits
from pipeline.validation.manifest import build_manifest, save_manifest, save_unreadable
from pipeline.validation.measures import Facts

UNREADABLE = "unreadable.csv"
FILES_NAMED = 5  # of each failed check, in a message that is one line


def validate(
    raw: RawDataset, limits: Mapping[str, Limits], output: Path, accepted: Path
) -> ValidationReport:
    """Check a dataset, and record it as accepted if it passes.

    Args:
        raw: the dataset as it was ingested.
        limits: the section `validation` of params.yaml.
        output: gets `manifest.parquet`, `data_docs/index.html`, `unreadable.csv` where there are
            such images, and, last, `summary.json`.
        accepted: the file of the versions that passed so far; `shift` compares with the last.

    Returns:
        The report; its warnings are for the caller to show.

    Raises:
        ParamsError: `limits` names an unknown check.
        ValidationFailed: a check of severity `error` failed. All files are written even so.
    """
    check_names(limits)
    info, history = raw.info, Accepted.load_or_new(accepted)
    manifest, histogram = build_manifest(raw)
    counts = {str(split): int(n) for split, n in manifest["split"].value_counts().items()}
    histograms = tuple(tuple(channel) for channel in histogram.tolist())
    version = AcceptedVersion(digest=content_digest(manifest), counts=counts, histograms=histograms)
    earlier = history.before(version.digest)
    facts = Facts(
        class_names=info.class_names,
        image_shape=info.image_shape,
        expected=info.expected or info.counts,
        histograms=histograms,
        accepted=earlier.histograms if earlier else None,
        ignored=info.ignored,
        forgotten=info.forgotten,
    )
    with ThreadPoolExecutor(1) as aside:
        raw_md5 = aside.submit(lambda: raw.md5)
        results, details = evaluate(manifest, facts, limits)
    report = ValidationReport(dataset=info.name, raw_md5=raw_md5.result(), results=results)
    save_manifest(manifest, output / "manifest.parquet")
    named = save_unreadable(manifest, output / UNREADABLE)
    docs = save_data_docs(details, results, info.name, output / "data_docs")
    report.save(output / "summary.json")
    if not report.passed:
        where = f"all unreadable images are in {output / UNREADABLE}, " if named else ""
        raise ValidationFailed(f"{describe_failures(report)}; {where}all checks are in {docs}")
    history.add(version, accepted)
    return report


def describe_failures(report: ValidationReport) -> str:
    """Name every failed check with its numbers and the first offending files, on one line."""
    failures = "; ".join(_describe(result) for result in report.failures("error"))
    # The name of a file may hold anything, even a line break.
    return " ".join(f"dataset {report.dataset} did not pass: {failures}".split())


def _describe(result: CheckResult) -> str:
    files = ", ".join(result.files[:FILES_NAMED])
    return f"{result.check}: {result.message}" + (f": {files}" if files else "")


def render(report: ValidationReport) -> Table:
    """Return the report as a table for a terminal: one row per check, with its worst result."""
    verdict = "passed" if report.passed else "failed"
    warned = len(report.failures("warning"))
    title = f"{report.dataset} {verdict}" + (f", warnings: {warned}" if warned else "")
    table = Table("check", "", "found", title=title)
    worst: dict[str, CheckResult] = {}
    for result in report.results:  # errors come before warnings
        if result.check not in worst or (worst[result.check].passed and not result.passed):
            worst[result.check] = result
    for result in worst.values():
        mark = Text("ok", "green")
        if not result.passed:
            mark = Text(result.severity, "red" if result.severity == "error" else "yellow")
        files = "" if result.passed else "".join(f"\n{f}" for f in result.files[:FILES_NAMED])
        table.add_row(result.check, mark, Text(result.message + files))
    return table
