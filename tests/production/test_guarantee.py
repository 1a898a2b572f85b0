"""A guarantee: found on test images, kept in a derived version, obeyed wherever it is asked."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from pipeline.artifacts.models import TrainedModel
from pipeline.cli import app
from pipeline.errors import ArtifactError, ParamsError
from pipeline.guarantee.selective import load_selective
from pipeline.production.audit import audit
from pipeline.production.guarantee import calibrate, default_version
from pipeline.production.promote import promote, rollback
from pipeline.production.rules import Thresholds
from pipeline.registry import model_files, versions
from pipeline.registry.passport import Passport
from pipeline.serving.predict import as_json, as_lines, predict
from pipeline.tracking.store import connect
from tests.promotable import here, two
from tests.tiny import images_of

__all__ = ["here", "two"]
NOISE = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1)).astype(np.uint8)


def run(*arguments):
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, [*arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_a_version_with_a_guarantee_is_made_promoted_and_obeyed(two, tmp_path):
    made = json.loads(run("guarantee", "tiny/2", "--error", "0.2", "--json").stdout)
    assert (made["version"], made["derived_from"], made["images"]) == (3, 2, 32)
    assert made["answered"] + made["not_sure"] + made["unlike"] == 32
    assert made["wrong"] <= 2, "a third mistake would prove nothing"
    assert (
        "registered as tiny/3, from tiny/2" in run("guarantee", "tiny/2", "--error", "0.2").stdout
    )
    assert versions.alias_holders("tiny")["challenger"] == 3

    served = model_files.load("models:/tiny/3")
    images = [*two.splits.x("test"), *NOISE]
    table = served.predict({"image": images})
    limits = load_selective(TrainedModel(model_files.fetch(versions.find("tiny/3")))).answer(
        np.stack(images)
    )
    assert table["reason"].tolist() == list(limits.reasons)
    assert (table["reason"][:32] == "").sum() == made["answered"]
    assert (table["reason"][32:] == "unlike the training images").mean() > 0.8
    for row in table.to_dict("records"):
        best = row["nearest"][0]
        assert len(row["nearest"]) == 3
        assert (row["class_name"], row["label"] == -1) == (
            ("unknown", True) if row["reason"] else (best, False)
        )
    plain = model_files.load("models:/tiny/2").predict({"image": images})
    assert list(plain.columns) == ["label", "class_name", "probabilities"]
    assert np.allclose(np.stack(plain["probabilities"]), np.stack(table["probabilities"]))

    decision = promote(versions.find("tiny/3"), two.splits, Thresholds()).decision
    assert decision is not None
    assert decision.passed, decision.failures
    assert audit(["tiny"]) == []
    files = {"noise": NOISE[0], "left": images_of([2], 5)[0]}
    for name, pixels in files.items():
        Image.fromarray(pixels.squeeze()).save(tmp_path / f"{name}.png")
    left, noise = predict([tmp_path / "left.png", tmp_path / "noise.png"], "tiny@production")
    assert (left.answer, left.unknown) == ("left $", "")
    assert (noise.answer, noise.unknown) == ("unknown", "unlike the training images")
    assert [row["answer"] for row in as_json([left, noise])] == ["left $", "unknown"]
    header, first, second = (line.split("\t") for line in as_lines([left, noise]))
    assert header == ["image", "class", "probability", "reason", "nearest"]
    assert first[1:] == ["left $", f"{left.classes[0][1]:.6f}", "", ""]
    assert second[1:4] == ["unknown", "", "unlike the training images"]
    assert second[4].startswith(noise.classes[0][0])

    refused = promote(versions.find("tiny/2"), two.splits, Thresholds()).decision
    assert refused is not None
    assert "guarantee" in refused.failed, "what is in production would promise nothing any more"
    assert "errs on at most 20% of all images" in run("lineage", "tiny@production").stdout
    assert rollback("tiny", None, "a try").version == 1

    client, version = connect(), versions.find("tiny/3")
    shown = {file.path for file in client.list_artifacts(version.run_id, "guarantee/3")}
    assert shown >= {f"guarantee/3/{name}" for name in ("risk_coverage.png", "card.html")}
    description = client.get_model_version("tiny", "3").description
    assert "errs on at most 20% of all images like the 32" in description
    run("card", "tiny/3", "--output", str(tmp_path / "card.html"))
    page = (tmp_path / "card.html").read_text()
    assert "How many of the calibration images it answers" in page


def test_nothing_is_registered_where_nothing_can_be_promised(two):
    with pytest.raises(ParamsError, match=r"32 calibration images .* at least 299 are needed"):
        run("guarantee", "tiny", "--error", "0.01")
    with pytest.raises(ParamsError, match="would answer no image"):
        run("guarantee", "tiny/1", "--error", "0.1")
    with pytest.raises(ParamsError, match=r"--error 0; allowed: more than 0, at most 0\.5"):
        run("guarantee", "tiny", "--error", "0")
    shown = run("guarantee", "tiny@challenger", "--error", "0.2", "--dry-run").stdout
    assert "nothing was registered" in shown
    assert [version.version for version in versions.all_of("tiny")] == [1, 2]
    assert default_version("tiny").version == 1


def test_images_that_it_has_seen_do_not_count(two, monkeypatch):
    version = versions.find("tiny/2")
    images = model_files.read_images(version)
    assert images is not None
    seen = replace(images, train=np.sort([*images.train, *images.test_rows[:10]]))
    monkeypatch.setattr(model_files, "read_images", lambda _: seen)
    assert calibrate(version, two.splits, 0.3, 0.9).guarantee.images == 22
    nothing = replace(images, train=images.train[:0])
    monkeypatch.setattr(model_files, "read_images", lambda _: nothing)
    with pytest.raises(ArtifactError, match="none of the images that tiny/2 was trained on"):
        calibrate(version, two.splits, 0.3, 0.9)
    monkeypatch.setattr(model_files, "read_images", lambda _: None)
    with pytest.raises(ArtifactError, match="no record of the images"):
        calibrate(version, two.splits, 0.3, 0.9)


def test_a_passport_of_before_has_no_guarantee(two):
    stored = model_files.fetch(versions.find("tiny/2"))
    content = json.loads((stored / "passport.json").read_text())
    for key in ("guarantee", "derived_from", "files"):
        del content[key]
    assert Passport.model_validate(content).guarantee is None
