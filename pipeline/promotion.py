"""The rule that decides which model is registered and who points at it: pure, no I/O."""

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.params import Floors

CHALLENGER = "challenger"
PRODUCTION = "production"


@dataclass(frozen=True)
class Candidate:
    """What is known of an evaluated model.

    Attributes:
        name: of the model in params.yaml.
        val_accuracy: on the validation split; it alone chooses.
        test_accuracy: on the test split; it only has to reach a floor.
        test_recall: of the class that is recalled least, on the test split.
    """

    name: str
    parameters: int
    val_accuracy: float
    test_accuracy: float
    test_recall: float


def best(candidates: Iterable[Candidate]) -> Candidate:
    """Choose on validation; between equals the smaller model, then the first by name."""
    return min(candidates, key=lambda c: (-c.val_accuracy, c.parameters, c.name))


def missed_floors(candidate: Candidate, floors: Floors) -> tuple[str, ...]:
    """Say which floors the candidate does not reach."""
    pairs = [
        ("accuracy", candidate.test_accuracy, floors.accuracy),
        ("lowest recall of a class", candidate.test_recall, floors.recall),
    ]
    return tuple(
        f"{what} {value:.4f} is below the floor {floor}"
        for what, value, floor in pairs
        if value < floor
    )


def aliases_for(
    candidate: Candidate, floors: Floors, production_exists: bool, auto_promote: bool = True
) -> tuple[str, ...]:
    """Return the aliases that a new version gets.

    It always is the challenger. It goes into production by itself only where that is wanted,
    nothing is there and it reaches the floors: a version in production is never replaced here.
    """
    if not auto_promote or production_exists or missed_floors(candidate, floors):
        return (CHALLENGER,)
    return (CHALLENGER, PRODUCTION)
