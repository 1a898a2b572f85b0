"""A version made from another one without training."""

import shutil

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.errors import ArtifactError, TrackingError
from pipeline.production.audit import audit
from pipeline.production.promote import promote
from pipeline.production.rules import Thresholds
from pipeline.registry import model_files, versions
from pipeline.registry.derive import derive
from tests.promotable import here

__all__ = ["here"]


@pytest.fixture
def notes(here, tmp_path):
    """Return a file that no version has."""
    file = tmp_path / "notes.txt"
    file.write_text("found later")
    return file


def test_a_derived_version_is_the_same_model_with_something_more(here, notes):
    first = versions.find("tiny/1")
    passport = model_files.read_passport(first)
    metrics = passport.metrics | {"found": 1.0}
    made = derive(first, "a test", {"notes.txt": notes}, {"metrics": metrics})
    assert (made.version, made.run_id, made.aliases) == (2, first.run_id, ())
    folder = model_files.fetch(made)
    assert (folder / "notes.txt").read_text() == "found later"
    stored = model_files.fetch(first)
    for name in ("model.keras", "model.tflite", "run.json", "images.npz"):
        assert (folder / name).read_bytes() == (stored / name).read_bytes()
    new = model_files.read_passport(made)
    assert new.derived_from is not None
    assert (new.derived_from.version, new.derived_from.by) == (1, "a test")
    kept = {"derived_from", "files", "metrics", "registered_at"}
    assert new.model_dump(exclude=kept) == passport.model_dump(exclude=kept)
    assert new.metrics == metrics

    again = derive(first, "a test", {"notes.txt": notes}, {"metrics": metrics})
    assert again.version == 2
    assert here.add("short", auto_promote=True).version == 1, "that is what was trained"
    notes.write_text("found later still")
    assert derive(first, "a test", {"notes.txt": notes}, {"metrics": metrics}).version == 3
    assert model_files.read_passport(derive(made, "a test", {}, {})).files == {}, "not its own"
    shown = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["lineage", "tiny/2"]).stdout
    assert "derived from  tiny/1, without training, by a test" in shown


def test_it_goes_into_production_without_being_better(here, notes):
    made = derive(versions.find("tiny/1"), "a test", {"notes.txt": notes}, {})
    decision = promote(made, here.splits, Thresholds(margin=0.005)).decision
    assert decision is not None
    assert decision.passed, decision.failures
    assert not {"better", "not_a_reseed"} & {answer.name for answer in decision.answers}
    assert versions.alias_holders("tiny")["production"] == 2
    assert audit(["tiny"]) == []
    (model_files.fetch(made) / "notes.txt").write_text("somebody else's")
    assert "notes.txt of tiny/2 is not what was registered" in audit(["tiny"])[0].message


def test_what_does_not_answer_as_it_says_is_not_registered(here, tmp_path):
    first = versions.find("tiny/1")
    passport = model_files.read_passport(first)
    wrong = tuple(e.model_copy(update={"probabilities": (1.0, 0, 0, 0)}) for e in passport.examples)
    with pytest.raises(TrackingError, match="it is not registered"):
        derive(first, "a test", {}, {"examples": wrong})
    other = tmp_path / "model.tflite"
    shutil.copy(model_files.fetch(first) / "model.tflite", other)
    with other.open("ab") as file:
        file.write(b"more")
    with pytest.raises(ArtifactError, match="the file that was checked had"):
        derive(first, "a test", {"model.tflite": other}, {})
    assert [version.version for version in versions.all_of("tiny")] == [1]
