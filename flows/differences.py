"""What differs between the making of a model and its making again: pure, no I/O."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pipeline.passport import Code, Environment, Passport

# What trains comes first; a package that only draws or serves comes after it.
TRAINS = ("tensorflow", "keras", "numpy", "ml-dtypes", "pillow", "scikit-learn", "pandas")
NONE = "none"


@dataclass(frozen=True)
class Difference:
    """One thing that is not as it was.

    Attributes:
        part: data, code, lock file, Python, package, platform or hardware.
        name: which one.
        then: what the passport says.
        now: what is here.
    """

    part: str
    name: str
    then: str
    now: str

    def __str__(self) -> str:
        return f"{self.part} {self.name}: {self.then} → {self.now}"


def of_environment(
    passport: Passport, code: Code, environment: Environment
) -> tuple[Difference, ...]:
    """Hold the code that is checked out, and this machine, against a passport.

    Args:
        passport: of the model.
        code: of the worktree; only its lock files are compared, as its commit is that of the model.
        environment: of this process.
    """
    then = passport.provenance.environment
    pairs = [("version", then.python, environment.python)]
    return (
        *_changed("lock file", passport.provenance.code.lockfiles, code.lockfiles),
        *(Difference("Python", *pair) for pair in pairs if pair[1] != pair[2]),
        *sorted(_changed("package", then.packages, environment.packages), key=_rank),
        *_changed("platform", {"": then.platform}, {"": environment.platform}),
        *_changed("hardware", then.hardware, environment.hardware),
    )


def of_data(passport: Passport, raw_md5: str, md5: Mapping[str, str]) -> tuple[Difference, ...]:
    """Hold the data that is there against a passport.

    Args:
        passport: of the model.
        raw_md5: of the raw dataset.
        md5: of each processed array.
    """
    return (
        *_changed("data", passport.data.md5, md5),
        *_changed("data", {"raw": passport.data.raw_md5}, {"raw": raw_md5}),
    )


def _changed(part: str, then: Mapping[str, str], now: Mapping[str, str]) -> Iterable[Difference]:
    for name in sorted(then.keys() | now.keys()):
        if then.get(name) != now.get(name):
            yield Difference(part, name, then.get(name, NONE), now.get(name, NONE))


def _rank(row: Difference) -> tuple[int, str]:
    return TRAINS.index(row.name) if row.name in TRAINS else len(TRAINS), row.name
