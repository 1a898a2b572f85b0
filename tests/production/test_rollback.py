"""Rollback, and versions that an older release registered."""

import shutil

import pytest

from pipeline.errors import ArtifactError, ParamsError
from pipeline.production.promote import rollback
from pipeline.serving.predict import predict
from pipeline.tracking.store import connect
from tests.conftest import ROOT
from tests.promotable import ask, files_of, here, state, two

__all__ = ["here", "two"]


def test_rollback_returns_to_the_one_before(two):
    ask(2, two)
    entry = rollback("tiny", None, "it confuses left and right")
    assert (entry.action, entry.previous, entry.version) == ("rolled back", 2, 1)
    holders, _ = state()
    assert holders == {"challenger": 2, "production": 1}
    with pytest.raises(ParamsError, match="nothing was in production before version 1"):
        rollback("tiny", None, "once more")
    assert rollback("tiny", 2, "it was not the model").version == 2
    assert state()[0] == {"challenger": 2, "production": 2, "previous": 1}


def test_rollback_loads_the_version_first(two):
    ask(2, two)
    before = state()
    with (files_of(1) / "model.keras").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ArtifactError, match=r"model.keras of tiny/1 is not what was registered"):
        rollback("tiny", None, "why not")
    assert state() == before


@pytest.mark.parametrize(
    ("to", "reason", "error", "words"),
    [
        (None, " ", ParamsError, "needs a reason"),
        (None, "x" * 501, ParamsError, "501 characters long"),
        (None, "why", ParamsError, "nothing was in production before"),
        (1, "why", ParamsError, "is in production already"),
        (2, "why", ParamsError, "never was in production; allowed: none"),
        (9, "why", ParamsError, "never was in production"),
    ],
)
def test_a_rollback_that_cannot_be(two, to, reason, error, words):
    before = state()
    with pytest.raises(error, match=words):
        rollback("tiny", to, reason)
    assert state() == before


def from_before_litert(number):
    """Make a version what an earlier release registered: without a LiteRT file, Keras answers."""
    files = files_of(number)
    (files / "model.tflite").unlink()
    (files / "portable.json").unlink()
    shutil.copy(ROOT / "tests" / "before" / "served_model.py", files.parent)
    connect().delete_model_version_tag("tiny", str(number), "portable_sha256")


def test_a_version_from_before_there_were_litert_files_serves_all_the_same(two):
    from_before_litert(2)
    with pytest.raises(ArtifactError, match=r"tiny/2 has no model.tflite: .* dvc repro --force"):
        predict([two.folder], "tiny/2")
    assert ask(2, two).action == "promoted"
    from_before_litert(1)
    assert rollback("tiny", None, "back to the oldest").version == 1


def test_such_a_version_in_production_meets_one_that_litert_serves(two):
    from_before_litert(1)
    outcome = ask(2, two)
    assert outcome.action == "promoted"
    assert {answer.name for answer in outcome.decision.answers} >= {"better", "not_worse"}
