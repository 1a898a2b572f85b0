"""What has changed between the two trainings of a model; no I/O."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pipeline.models.recipes import Recipe
from pipeline.registry.passport import Passport
from pipeline.tracking.provenance import Environment

# These train; other packages only draw or serve, and come after them.
TRAINS = (
    "tensorflow",
    "keras",
    "numpy",
    "ml_dtypes",
    "h5py",
    "scipy",
    "pillow",
    "scikit-learn",
    "pandas",
)
NONE = "none"
# Where these differ, equal seeds may give different weights.
OTHER_MACHINE = ("Python", "package", "hardware")


@dataclass(frozen=True)
class Difference:
    """One thing that has changed.

    Attributes:
        part: code, recipe, data, lock file, Python, package, platform or hardware.
        name: which one.
        then: what the passport says.
        now: what is here.
    """

    part: str
    name: str
    then: str
    now: str

    def __str__(self) -> str:
        return f"{' '.join(filter(None, (self.part, self.name)))}: {self.then} → {self.now}"

    @property
    def of_machine(self) -> bool:
        """Whether it explains other weights: another machine or other packages compute them."""
        return self.part in OTHER_MACHINE and self.name != "memory_gib"

    @property
    def likely(self) -> bool:
        """Whether it is a likely cause of different weights."""
        return self.of_machine or self.part in ("code", "recipe")


def of_making(
    passport: Passport,
    modules: Mapping[str, str],
    lockfiles: Mapping[str, str],
    environment: Environment,
) -> tuple[Difference, ...]:
    """Compare the code and the machine with a passport, the likeliest causes first.

    Args:
        passport: the passport of the model.
        modules: md5 of each module that the passport says training reached.
        lockfiles: sha256 of the requirements files that this environment was made from.
        environment: the environment of this process.
    """
    code, then = passport.provenance.code, passport.provenance.environment
    reached = passport.training_code
    packages = _changed("package", then.packages, environment.packages)
    return (
        *_changed("code", reached, modules),
        *_changed("Python", {"": then.python}, {"": environment.python}),
        *sorted(packages, key=_rank),
        *_changed("hardware", then.hardware, environment.hardware),
        *_changed("platform", {"": then.platform}, {"": environment.platform}),
        *_changed("lock file", code.lockfiles, lockfiles),
    )


def of_recipe(passport: Passport, recipe: Recipe) -> tuple[Difference, ...]:
    """Compare the recipe of the plan, with its seed, with a passport."""
    return tuple(_changed("recipe", _fields(passport.provenance.recipe), _fields(recipe)))


def of_data(passport: Passport, raw_md5: str, md5: Mapping[str, str]) -> tuple[Difference, ...]:
    """Compare the data with a passport.

    Args:
        passport: the passport of the model.
        raw_md5: the md5 of the raw dataset.
        md5: the md5 of each processed array.
    """
    return (
        *_changed("data", passport.data.md5, md5),
        *_changed("data", {"raw": passport.data.raw_md5}, {"raw": raw_md5}),
    )


def _fields(recipe: Recipe) -> dict[str, str]:
    return {key: str(value) for key, value in recipe.model_dump(mode="json").items()}


def _changed(part: str, then: Mapping[str, str], now: Mapping[str, str]) -> Iterable[Difference]:
    for name in sorted(then.keys() | now.keys()):
        if then.get(name) != now.get(name):
            yield Difference(part, name, then.get(name, NONE), now.get(name, NONE))


def _rank(row: Difference) -> tuple[int, str]:
    return TRAINS.index(row.name) if row.name in TRAINS else len(TRAINS), row.name
