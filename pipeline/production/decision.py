"""A decision about a version: every question that was asked, its answer, and what follows."""

from pipeline.artifacts.record import Frozen


class Check(Frozen):
    """One question that was asked, and its answer.

    Attributes:
        value: what was found.
        limit: what is allowed.
        message: the answer as a sentence.
    """

    name: str
    value: float | str
    limit: float | str
    passed: bool
    message: str


class Decision(Frozen):
    """Whether a version may go into production, and why.

    Attributes:
        test_md5: of the test split on which both were asked.
        incumbent: the version in production; None where there is none.
    """

    candidate: int
    incumbent: int | None
    test_md5: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    @property
    def failures(self) -> tuple[str, ...]:
        """What did not pass, as sentences."""
        return tuple(check.message for check in self.checks if not check.passed)


def at_least(name: str, value: float, floor: float, what: str) -> Check:
    """Check that a value reaches a floor; `what` names it in the answer."""
    good, bad = f"{what} {value:.4f}", f"{what} {value:.4f} is below the floor {floor:g}"
    return answer(name, value >= floor, (value, floor), good, bad)


def at_most(name: str, value: float, most: float) -> Check:
    """Check that a value is not above the most that is allowed."""
    what = name.replace("_", " ")
    good, bad = f"{what} {value:.4g}", f"{what} {value:.4g} is above {most:g}"
    return answer(name, value <= most, (value, most), good, bad)


def answer(
    name: str, passed: bool, pair: tuple[float | str, float | str], good: str, bad: str
) -> Check:
    """Put a question's answer, with value and limit, into words: `good` or `bad`."""
    value, limit = pair
    message = good if passed else bad
    return Check(name=name, value=value, limit=limit, passed=passed, message=message)
