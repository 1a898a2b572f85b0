"""What the checks of a dataset found."""

from typing import Literal

from pipeline.artifacts.record import Frozen, Record


class CheckResult(Frozen):
    """One check of one dataset: what it saw, the limit it broke or kept, and who is to blame."""

    check: str
    severity: Literal["error", "warning"]
    passed: bool
    observed: float
    limit: float
    message: str
    files: tuple[str, ...] = ()


class ValidationReport(Record):
    """`reports/<dataset>/validation/summary.json`, without times: equal data, equal file."""

    dataset: str
    raw_md5: str
    results: tuple[CheckResult, ...]

    @property
    def passed(self) -> bool:
        """Whether no check of severity `error` failed."""
        return not self.failures("error")

    def failures(self, severity: Literal["error", "warning"]) -> tuple[CheckResult, ...]:
        """The failed checks of one severity."""
        return tuple(r for r in self.results if r.severity == severity and not r.passed)
