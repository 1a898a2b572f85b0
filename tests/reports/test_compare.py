"""Two tiny models, registered for real, side by side: as facts, as a table and as a page."""

import base64
import html
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from scipy.stats import binomtest
from typer.testing import CliRunner

from pipeline.artifacts.datasets import Splits
from pipeline.artifacts.files import dvc_md5
from pipeline.cli import app
from pipeline.errors import ArtifactError, ParamsError, TrackingError
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.predictions import Predictions
from pipeline.production.rules import Thresholds
from pipeline.registry.passport import test_md5 as md5_of_test
from pipeline.reports.compare import compare, page, track
from pipeline.reports.comparing import figures, side_by_side, table
from pipeline.reports.comparing.comparison import as_json, compare_sides
from pipeline.reports.comparing.sides import load
from pipeline.tracking.runs import new_run
from pipeline.tracking.store import connect
from pipeline.training.train import train
from pipeline.workspace import Workspace
from tests.tiny import register, tiny_plan, tiny_project, tiny_splits, tiny_validation

NAMES = ("dark", "<script>alert(1)</script>", "left $", 'right" onload="x')


def named_splits(folder, seed=0):
    splits = tiny_splits(folder, seed=seed)
    splits.info.model_copy(update={"class_names": NAMES}).save(folder / "metadata.json")
    return splits


def made_model(splits, name, workspace, **recipe):
    trained = train(splits, tiny_plan(name, **recipe), workspace.trained(name).path, device="cpu")
    return trained, evaluate(trained, splits, workspace.evaluation(name).path)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Register version 1, which is hardly trained, and version 2, which is."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        tiny_project(folder)
        workspace = Workspace("tiny", folder)
        splits = named_splits(workspace.splits.path)
        models = {
            "short": made_model(splits, "short", workspace, epochs=1),
            "dense": made_model(splits, "dense", workspace, epochs=16),
        }
        for name, pair in models.items():
            register({name: pair}, splits, tiny_validation(), Thresholds(), folder / f"{name}.json")
        yield SimpleNamespace(folder=folder, splits=splits, models=models)


@pytest.fixture
def here(made, monkeypatch):
    """Work in the folder in which they were made."""
    monkeypatch.chdir(made.folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return made


@pytest.fixture(scope="module")
def sides(made):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made.folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return load("tiny/1"), load("tiny/2")


@pytest.fixture
def copy(made, tmp_path, monkeypatch):
    """Work in a copy of the files, with the store left where it is."""
    folder = tmp_path / "copy"
    shutil.copytree(made.folder, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{made.folder}/mlflow.db")
    return folder


def rights(made):
    y = np.asarray(made.splits.y("test"))
    probabilities = {name: np.asarray(pair[1].probabilities) for name, pair in made.models.items()}
    return (
        y,
        probabilities,
        {name: rows.argmax(axis=1) == y for name, rows in probabilities.items()},
    )


def compared(pair, folder, flips=36):
    a, b = pair
    return compare_sides(a, b, folder, flips)


def paired(a, b):
    return side_by_side.paired(a, b)


def by_name(metrics):
    return {row.name: row for row in metrics}


def run_ids(made):
    return {name: pair[0].run.run_id for name, pair in made.models.items()}


# the facts


def test_the_flips_are_those_of_the_stored_predictions(here, sides):
    y, probabilities, right = rights(here)
    found = compared(sides, here.folder)
    lost = np.flatnonzero(right["short"] & ~right["dense"])
    won = np.flatnonzero(~right["short"] & right["dense"])
    assert len(won) > 3
    assert found.paired.only_a == len(lost)
    assert found.paired.only_b == len(won)
    assert found.paired.images == 32
    assert {flip.number for flip in found.flips.lost} == set(lost)
    assert {flip.number for flip in found.flips.won} == set(won)
    sure = [flip.confidence_a for flip in found.flips.won]
    assert sure == sorted(sure, reverse=True)
    for flip in (*found.flips.lost, *found.flips.won):
        assert flip.true == NAMES[y[flip.number]]
        for side, name in (("a", "short"), ("b", "dense")):
            row = probabilities[name][flip.number]
            assert getattr(flip, f"predicted_{side}") == NAMES[row.argmax()]
            assert getattr(flip, f"confidence_{side}") == pytest.approx(row.max())


def test_the_p_value_is_the_exact_one_of_both_ways(sides):
    a, b = (side.predictions for side in sides)
    forth, back = paired(a, b), paired(b, a)
    differing = forth.only_a + forth.only_b
    assert forth.p_value == pytest.approx(binomtest(forth.only_b, differing).pvalue)
    assert forth.p_value == back.p_value
    assert forth.difference.value == -back.difference.value
    low, high = forth.difference.interval
    assert low <= forth.difference.value <= high
    assert paired(a, a).p_value == 1


def test_metrics_are_those_of_the_evaluation_within_their_intervals(made, sides):
    a, b = sides
    rows = by_name(side_by_side.metrics(a, b))
    stored = made.models["dense"][1].metrics
    for name in ("accuracy", "top_3_accuracy", "f1", "loss", "parameters"):
        assert rows[name].b.value == stored[name]
    low, high = rows["accuracy"].b.interval
    assert low == pytest.approx(stored["accuracy_low"])
    assert high == pytest.approx(stored["accuracy_high"])
    for name in ("accuracy", "precision", "recall", "f1", "loss"):
        low, high = rows[name].a.interval
        assert low <= rows[name].a.value <= high
    assert rows["latency_p95_ms"].a.interval is None


def test_recalls_and_confusions_are_counted_per_class(made, sides):
    y, _, right = rights(made)
    a, b = (side.predictions for side in sides)
    rows = by_name(side_by_side.recalls(a, b))
    for label, name in enumerate(NAMES):
        assert rows[name].a.value == right["short"][y == label].mean()
        assert rows[name].b.value == right["dense"][y == label].mean()
    difference = side_by_side.confusion_difference(a, b)
    assert difference.sum() == 0
    diagonal = [right["dense"][y == n].sum() - right["short"][y == n].sum() for n in range(4)]
    assert np.diag(difference).tolist() == diagonal


def test_what_changed_is_what_was_changed(here, sides):
    found = {s.name: s for s in compared(sides, here.folder, 1).sections}
    rows = {change.key: (change.a, change.b) for change in found["recipe"].changes}
    assert rows == {"epochs": ("1", "16")}
    assert [found[name].changes for name in ("data", "packages", "hardware")] == [(), (), ()]


def test_layers_are_put_beside_each_other(here, sides):
    a, b = sides
    more = ("flatten", "dense: 32", "dense: 16", "dropout: 0.5")
    changed = replace(b, origin=replace(b.origin, layers=more))
    assert a.origin.layers == ("flatten", "dense: 16")
    found = {s.name: s for s in compared((a, changed), here.folder, 1).sections}
    layers = [(row.a, row.b) for row in found["recipe"].changes if row.key == "layer"]
    assert layers == [("", "2. dense: 32"), ("", "4. dropout: 0.5")]


def test_a_verdict_for_every_outcome(here, sides):
    a = sides[0]
    y, probabilities = a.predictions.y, a.predictions.probabilities
    wrong = np.flatnonzero(a.predictions.predicted != y)

    def other(rows):
        """Return a model that differs from A in being right on these images too."""
        better = probabilities.copy()
        better[rows] = np.eye(len(NAMES))[y[rows]]
        return replace(a, run_id="0" * 32, predictions=replace(a.predictions, probabilities=better))

    assert len(wrong) > 5
    perfect = other(wrong)
    assert "B is better: right on" in compared((a, perfect), here.folder, 1).verdict
    assert "A is better: right on" in compared((perfect, a), here.folder, 1).verdict
    chance = compared((a, other(wrong[:1])), here.folder, 1).verdict
    assert chance == "B is right on 1 more of the 32 test images, which may be chance."
    assert "equally many" in compared((a, other(wrong[:0])), here.folder, 1).verdict
    assert compared((a, a), here.folder, 1).verdict == "A and B are the same model."


# how the two are named


@pytest.mark.parametrize("how", ["alias", "run", "folder", "file"])
def test_every_way_to_name_a_model_finds_the_same(here, sides, how):
    spec = {
        "alias": "tiny@challenger",
        "run": run_ids(here)["dense"],
        "folder": "models/tiny/dense",
        "file": "models/tiny/dense/model.keras",
    }[how]
    side, version = load(spec), sides[1]
    np.testing.assert_array_equal(side.predictions.probabilities, version.predictions.probabilities)
    np.testing.assert_array_equal(side.predictions.y, here.splits.y("test"))
    assert side.predictions.class_names == NAMES
    for name in ("run_id", "dataset", "model", "metrics", "history", "data_md5"):
        assert getattr(side, name) == getattr(version, name), name
    slugs = {"alias": "tiny-2", "run": side.run_id[:8]}
    assert side.slug == slugs.get(how, "tiny-dense")
    found = compared((sides[0], side), here.folder)
    assert found.paired == compared(sides, here.folder).paired
    assert found.flips.reason == ""
    assert [len(s.changes) for s in found.sections] == [1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("spec", "error", "reason"),
    [
        ("tiny", ParamsError, "allowed: <name>@<alias>"),
        ("tiny@nobody", TrackingError, "there are: .*tiny/1"),
        ("tiny/7", TrackingError, "there are: .*tiny/1"),
        ("other/1", TrackingError, "there are: tiny"),
        ("f" * 32, TrackingError, "has no run f"),
        ("models/tiny/nobody", ArtifactError, "holds no trained model"),
        ("models", ArtifactError, "holds no trained model"),
    ],
)
def test_what_is_not_there_is_said(here, spec, error, reason):
    with pytest.raises(error, match=reason):
        load(spec)


def test_a_run_without_an_evaluation_is_said(here):
    with new_run("tiny", "empty") as run:
        run.log_text("epoch,loss\n", "history.csv")
    with pytest.raises(TrackingError, match=r"FINISHED.* has no evaluation"):
        load(run.run_id)


def test_a_deleted_file_of_a_run_is_named(made, tmp_path, monkeypatch):
    folder = tmp_path / "store"
    shutil.copytree(made.folder, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    with new_run("other place", "dense") as run:
        run.log_artifact(made.models["dense"][1].path, "evaluation")
        run.log_artifact(made.models["dense"][0].history)
    load(run.run_id)
    (path,) = folder.glob(f"mlartifacts/*/{run.run_id}/artifacts/evaluation/confusion.csv")
    path.unlink()
    with pytest.raises(TrackingError, match=r"lacks evaluation/confusion.csv"):
        load(run.run_id)


def test_a_run_from_before_there_was_a_provenance_is_compared(here, sides):
    with new_run("tiny", "old") as run:
        run.log_artifact(here.models["dense"][1].path, "evaluation")
        run.log_artifact(here.models["dense"][0].history)
        run.log_tags({"dataset": "tiny", "model": "dense", "data_md5": sides[0].data_md5})
    found = compared((sides[0], load(run.run_id)), here.folder, 1)
    assert found.paired.only_b > 3
    assert {s.name: s.unknown for s in found.sections}["recipe"] == ("B",)
    assert "is not known for B" in page(found)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("evaluation/dense/confusion.csv", "actual,predicted\ndark,dark\n", "do not fit"),
        ("evaluation/dense/confusion.csv", "", "is empty"),
        ("evaluation/dense/predictions/probabilities.npy", "torn", "cannot read"),
        ("evaluation/dense/metrics.json", '{"run_id": "other"}', "evaluate it again"),
    ],
)
def test_a_torn_evaluation_is_said(copy, name, content, reason):
    (copy / "reports" / "tiny" / name).write_text(content)
    with pytest.raises(ArtifactError, match=reason):
        load("models/tiny/dense")


@pytest.mark.parametrize("content", ["epoch,loss\n1,high\n", "epoch,loss\n1\n"])
def test_a_torn_history_is_said(copy, content):
    (copy / "models/tiny/dense/history.csv").write_text(content)
    with pytest.raises(ArtifactError, match="is torn"):
        load("models/tiny/dense")


# what cannot be compared


def test_models_of_different_datasets_are_refused(here, sides):
    a, b = sides
    with pytest.raises(ParamsError, match=r"tiny/2 of letters; only models of one dataset"):
        compared((a, replace(b, dataset="letters")), here.folder, 1)


def test_different_test_sets_have_no_pairs(here, sides, tmp_path):
    other = Workspace("tiny", tmp_path)
    splits = named_splits(other.splits.path, seed=7)
    made_model(splits, "later", other, epochs=1)
    later = load(str(other.trained("later").path))
    unknown = compared((sides[0], later), here.folder, 1)
    assert "only registered versions record" in unknown.reason
    known = compared((sides[0], later), tmp_path, 1)
    assert "different test splits" in known.reason
    for found in (unknown, known):
        assert found.paired is None
        text = page(found)
        assert html.escape(found.reason) in text
        assert "<figure>" not in text
        assert "accuracy" in text
        assert as_json(found)["paired"] is None
    rows = {change.key for s in known.sections if s.name == "data" for change in s.changes}
    assert "processed data, md5" in rows


def test_what_either_has_seen_is_left_out_of_pairs_and_flips(here, sides):
    a, b = sides
    images = a.images.test_rows
    numbers = [flip.number for flip in compared(sides, here.folder).flips.won]
    seen = np.sort(images[[numbers[0], 5]])
    found = compared((a, replace(b, images=replace(b.images, val=seen))), here.folder)
    count = len({numbers[0], 5})
    assert found.paired.images == 32 - count
    note = f"Left out: {count} seen in training or validation (A 0, B {count})."
    assert found.note == note
    assert note in page(found)
    assert as_json(found)["left_out"] == note
    assert {flip.number for flip in found.flips.won} == {*numbers} - {numbers[0], 5}
    unknown = replace(b, images=None, data_md5="0")
    found = compared((a, unknown), here.folder)
    assert found.paired.images == 32
    assert found.note == "Not recorded is which images B has seen."


def test_images_that_two_test_splits_share_are_compared_where_they_are(here, sides):
    a, b = sides
    order = np.random.default_rng(0).permutation(32)[:20]
    images = replace(b.images, test_rows=b.images.test_rows[order])
    moved = replace(b, predictions=b.predictions.of(order), images=images, test_md5="0")
    found = compared((a, replace(moved, data_md5="0")), here.folder)
    assert found.note == "Left out: 12 of only one test split."
    whole = compared(sides, here.folder)
    assert {flip.number for flip in found.flips.won} == {
        flip.number for flip in whole.flips.won if flip.number in order
    }
    for flip in found.flips.won:
        assert flip in whole.flips.won, "the picture, the answers and the number are of one image"


def test_different_classes_have_no_pairs(here, sides):
    a, b = sides
    other = replace(b.predictions, class_names=("one", "two", "three", "four"))
    found = compared((a, replace(b, predictions=other)), here.folder, 1)
    assert (found.paired, found.recalls) == (None, ())
    assert page(found).count("They have different classes (4 new: one, two, three, four;") >= 3


def test_labels_that_differ_where_the_data_is_one_are_an_error(here, sides):
    a, b = sides
    said = replace(b.predictions, y=b.predictions.y[::-1])
    with pytest.raises(ArtifactError, match="labels of their evaluations differ"):
        compared((a, replace(b, predictions=said)), here.folder, 1)


def test_without_the_images_the_page_says_why(copy, sides):
    data = copy / "data/processed/tiny"
    images = np.load(data / "x_test.npy")
    np.save(data / "x_test.npy", 255 - images)
    assert "are not those that its metadata.json names" in reason_in(copy, sides)
    shutil.rmtree(data)
    assert "is not in this folder" in reason_in(copy, sides)
    named_splits(data, seed=7)
    assert "has another test split" in reason_in(copy, sides)


def reason_in(folder, sides):
    found = compared(sides, folder)
    assert found.paired is not None
    assert found.flips.won == ()
    assert html.escape(found.flips.reason) in page(found)
    return found.flips.reason


# the page and the table


@pytest.fixture(scope="module")
def text(made, sides):
    return page(compared(sides, made.folder, flips=3))


def test_the_page_shows_the_images_of_the_flips(made, text):
    shown = re.findall(r'base64,([^"]+)" alt="Test image (\d+)', text)
    assert len(shown) >= 3
    for picture, number in shown:
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))))
        np.testing.assert_array_equal(pixels, made.splits.x("test")[int(number)].squeeze())


def test_the_page_says_how_many_flips_there_are(made, text):
    _, _, right = rights(made)
    won = int((~right["short"] & right["dense"]).sum())
    assert f"3 of {won} shown" in text
    assert f"{won} wrong → right" in text


def test_the_page_needs_nothing_and_runs_nothing(text):
    assert "<script" not in text
    assert 'onload="' not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "right&#34; onload=&#34;x" in text
    assert "left $" in text
    assert "default-src 'none'" in text
    assert not re.search(r'(?:src|href)="(?!data:image/png;base64,)', text)
    assert text.count("<svg") == 2


def test_the_runs_are_links_where_mlflow_has_a_page(here, sides, monkeypatch):
    monkeypatch.setenv("MLFLOW_UI_URL", "https://mlflow.example/")
    shown = page(compared(sides, here.folder))
    for side in sides:
        place = f"https://mlflow.example/#/experiments/{side.experiment_id}/runs/{side.run_id}"
        assert f'<a href="{place}">{side.run_id[:8]}</a>' in shown


def test_large_images_are_made_smaller(here, sides, tmp_path):
    splits = Splits(tmp_path / "data/processed/tiny")
    shutil.copytree(here.splits.path, splits.path)
    large = np.repeat(np.repeat(here.splits.x("test"), 50, axis=1), 25, axis=2)
    splits.save_split("test", np.repeat(large, 3, axis=3), here.splits.y("test"))
    md5 = splits.info.md5 | {"x_test.npy": dvc_md5(splits.path / "x_test.npy")}
    splits.info.model_copy(update={"md5": md5}).save(splits.path / "metadata.json")
    both = [replace(side, test_md5=md5_of_test(splits.info)) for side in sides]
    flip = compared(both, tmp_path, 1).flips.won[0]
    picture = Image.open(io.BytesIO(base64.b64decode(flip.png)))
    assert (picture.size, picture.mode, flip.small) == ((80, 160), "RGB", False)


def test_of_many_classes_those_that_changed_most_are_shown():
    difference = np.zeros((100, 100), np.int64)
    difference[70, 71], difference[3, 90] = 5, -10
    shown = figures.matrix(difference, [f"class {n}" for n in range(100)])
    assert len(shown.names) == len(shown.rows) == figures.MOST_CLASSES
    assert {"class 3", "class 70", "class 71", "class 90"} <= set(shown.names)
    strong = {cell.count: cell.strength for row in shown.rows for cell in row}
    assert strong == {0: 0.0, 5: 0.5, -10: 1.0}


def test_an_axis_holds_values_that_are_all_equal():
    one = side_by_side.Value(1.0)
    metric = side_by_side.ComparedMetric("accuracy", one, one)
    (row,) = figures.dots([metric]).rows
    assert row.a == figures.Mark(dot=50, start=50, length=0)
    assert figures.dots([replace(metric, a=None)]).rows[0].a is None


def test_a_class_without_test_images_has_no_recall():
    said = Predictions(("x", "y"), np.array([0, 0]), np.array([[1, 0], [0, 1]], np.float32))
    rows = by_name(side_by_side.recalls(said, said))
    assert rows["x"].a.value == 0.5
    assert rows["y"].a is None


def test_the_table_fits_a_terminal(here, sides):
    console = Console(width=80, record=True, file=io.StringIO())
    found = compared(sides, here.folder, 1)
    console.print(table.render(found), highlight=False)
    shown = console.export_text()
    assert f"{sides[0].metrics['accuracy']:.2%}" in shown
    assert f"wrong -> right  {found.paired.only_b}" in shown
    assert re.search(r"epochs +1 +16", shown)
    assert "challenger" in shown


# the command


def test_the_page_goes_to_both_runs_under_one_name(here, tmp_path):
    found, path = compare("tiny/1", "tiny@challenger")
    assert path == Path("reports/compare/tiny-1-vs-tiny-2.html")
    stored = f"comparisons/{path.name}"
    client, ids = connect(), run_ids(here)
    for run_id in ids.values():
        assert client.list_artifacts(run_id, "comparisons") == []
    track(found, path)
    for run_id in ids.values():
        assert Path(client.download_artifacts(run_id, stored, str(tmp_path))).read_text() == (
            path.read_text()
        )


def test_the_command_prints_a_table_or_json(here, tmp_path):
    output = tmp_path / "page.html"
    line = ["compare", "tiny/1", run_ids(here)["dense"], "--output", str(output), "--no-track"]
    done = CliRunner().invoke(app, line)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == str(output)
    assert max(map(len, done.stdout.splitlines()[:-1])) <= 80
    as_text = json.loads(CliRunner().invoke(app, [*line, "--flips", "0", "--json"]).stdout)
    assert as_text["paired"]["only_b"] > 3
    assert as_text["changes"]["recipe"]["rows"] == [{"key": "epochs", "a": "1", "b": "16"}]
    assert as_text["page"] == str(output)
    assert "0 of " in output.read_text()


def test_a_page_that_cannot_be_written_is_said(here, tmp_path):
    with pytest.raises(ArtifactError, match="cannot write"):
        compare("models/tiny/short", "models/tiny/dense", tmp_path)
