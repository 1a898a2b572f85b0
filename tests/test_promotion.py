import pytest

from pipeline.params import Floors
from pipeline.promotion import Candidate, aliases_for, best, missed_floors


def candidate(name="a", parameters=100, val=0.9, test=0.9, recall=0.8):
    return Candidate(name, parameters, val, test, recall)


def test_validation_alone_chooses():
    luckier_on_test = candidate("a", val=0.90, test=0.99)
    assert best([luckier_on_test, candidate("b", val=0.91, test=0.80)]).name == "b"


def test_between_equals_the_smaller_then_the_first_by_name():
    assert best([candidate("a", 200), candidate("b", 100)]).name == "b"
    assert best([candidate("b"), candidate("a")]).name == "a"


@pytest.mark.parametrize(
    ("floors", "missed"),
    [
        (Floors(), 0),
        (Floors(accuracy=0.9, recall=0.8), 0),
        (Floors(accuracy=0.91), 1),
        (Floors(recall=0.81), 1),
        (Floors(accuracy=1, recall=1), 2),
    ],
)
def test_floors(floors, missed):
    assert len(missed_floors(candidate(), floors)) == missed


def test_the_reason_has_value_and_floor():
    assert missed_floors(candidate(), Floors(accuracy=0.95)) == (
        "accuracy 0.9000 is below the floor 0.95",
    )


def test_the_first_that_meets_the_floors_goes_into_production():
    assert aliases_for(candidate(), Floors(), False) == ("challenger", "production")
    assert aliases_for(candidate(), Floors(accuracy=0.95), False) == ("challenger",)
    assert aliases_for(candidate(), Floors(), True) == ("challenger",)


def test_nothing_is_promoted_unasked():
    assert aliases_for(candidate(), Floors(), False, auto_promote=False) == ("challenger",)
