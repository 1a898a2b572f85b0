"""card: what it says is in the passport, names are text in it, and MLflow shows it."""

import base64
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from pipeline.artifacts.validation import CheckResult
from pipeline.cli import app
from pipeline.data import datasets
from pipeline.data.ingest import ingest
from pipeline.data.settings import DatasetPlan, ImageFolder
from pipeline.errors import ParamsError, TrackingError
from pipeline.evaluation.measures import Confused
from pipeline.models.backbones.backbones import BACKBONES
from pipeline.registry import model_files, versions
from pipeline.reports.card import FIGURES, description, most_confused, publish, render
from pipeline.reports.wording import limits, metric_rows
from pipeline.tracking.store import connect
from tests.page import Page
from tests.registered import registered

HOSTILE = (
    "a|b",
    "|[x](javascript:alert(1))",
    "`x`",
    "<script>alert(1)</script>",
    "$E=mc^2$ $$y$$",
    "[x](http://localhost)",
    "![x](y.png)",
    "*b* _i_ __j__ ~~k~~",
    "&amp; \\| \\",
    "1. x",
    "- x",
    "{{ 7 * 7 }} {% raw %}",
    "www.localhost <b onclick=x>",
    "#1 @me",
    '"><img src=x onerror=alert(1)>',
    "T-shirt/top",
    "ankle_boot",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return registered(tmp_path_factory.getbasetemp())


@pytest.fixture
def elsewhere(made, tmp_path, monkeypatch):
    """Work in an empty folder, with a copy of the registry."""
    (tmp_path / "store").mkdir()
    shutil.copy(made / "mlflow.db", tmp_path / "store" / "mlflow.db")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/store/mlflow.db")
    return tmp_path / "work"


@pytest.fixture
def passport(elsewhere):
    return model_files.read_passport(versions.find("tiny/1"))


def with_classes(passport, classes, **data):
    """Return a passport of other classes, each a recall by name."""
    rows = {
        name: {"precision": 0.5, "recall": recall, "f1": 0.5, "support": support}
        for name, (recall, support) in classes.items()
    }
    info = passport.data.model_copy(update={"class_names": tuple(classes), **data})
    return passport.model_copy(update={"classes": rows, "data": info})


def test_it_says_what_the_passport_says(passport):
    text = render(passport, 1).markdown
    metrics = passport.metrics
    assert text.startswith("# tiny, version 1\n")
    assert "64 train, 32 val, 32 test" in text
    assert "Licence: not stated" in text
    assert (
        f"| accuracy | {metrics['accuracy']:.2%} | {100 * metrics['accuracy_low']:.1f} to "
        f"{metrics['accuracy_high']:.1%} |"
    ) in text
    assert f"commit {passport.provenance.code.commit}, with changes that are in no commit" in text
    assert '    layers: [{"flatten": true}, {"dense": 16}]' in text
    headings = re.findall("^## (.*)$", text, re.MULTILINE)
    assert headings == [
        "Intended use",
        "Data",
        "Training",
        "Metrics",
        "Metrics by class",
        "Limits",
        "How to load it",
    ]


def test_the_weights_of_a_backbone_are_named_with_licence_and_images(passport):
    assert "Backbone:" not in render(passport, 1).markdown
    weights = BACKBONES[0].weights
    made = passport.provenance.model_copy(update={"weights": weights})
    text = render(passport.model_copy(update={"provenance": made}), 1).markdown
    for said in ("lite0, trained on ImageNet", weights.source, "Apache-2.0", weights.sha256):
        assert said in text


@pytest.mark.parametrize(
    ("stated", "shown"),
    [("", "Nobody has stated"), (" ", "Nobody has stated"), ("Sort\nx", "Sort x")],
)
def test_an_intended_use_is_stated_by_somebody_or_nobody(passport, stated, shown):
    data = passport.data.model_copy(update={"intended_use": stated})
    changed = passport.model_copy(update={"data": data})
    assert f"## Intended use\n\n{shown}" in render(changed, 1).markdown


def test_a_dataset_hands_on_what_it_is_meant_for(tmp_path):
    known = ingest(DatasetPlan(name="digits", entry=None), tmp_path / "known", progress=False)
    assert known.info.intended_use == datasets.get("digits").intended_use
    for number, name in enumerate(
        ("a/1.png", "a/2.png", "a/3.png", "b/1.png", "b/2.png", "b/3.png")
    ):
        file = tmp_path / "own" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 40 * number).save(file)
    entry = ImageFolder(source=str(tmp_path / "own"), image_size=(8, 8), intended_use="To sort.")
    own = ingest(DatasetPlan(name="own", entry=entry), tmp_path / "raw", progress=False)
    assert own.info.intended_use == "To sort."


@pytest.mark.parametrize("name", datasets.known_names())
def test_every_known_dataset_is_meant_for_something(name):
    assert datasets.get(name).intended_use.endswith(".")


def test_the_classes_are_in_order_the_worst_first(passport):
    rows = Page(render(passport, 1).html).rows
    recalls = [passport.classes[row[0]]["recall"] for row in rows if row[0] in passport.classes]
    assert len(recalls) == 4
    assert recalls == sorted(recalls)


def test_the_page_has_figures_and_examples_and_loads_nothing(made, passport):
    plots = made / "evaluation" / "dense" / "plots"
    page = Page(render(passport, 1, plots=plots).html)
    images = [target for target in page.targets if target.startswith("data:image/png;base64,")]
    shown = [name for name in FIGURES if (plots / name).exists()]
    assert len(shown) >= 5
    assert len(images) == len(passport.examples) + len(shown)
    links = [target for target in page.targets if target not in images]
    assert links == ["https://arxiv.org/abs/1810.03993"]
    assert not page.tags & {"script", "link", "iframe"}
    without = Page(render(passport, 1, plots=made / "nowhere").html)
    assert len(without.targets) == len(passport.examples) + 1


def test_names_are_text_whatever_they_hold(passport):
    hostile = with_classes(
        passport,
        {name: (0.5, 50) for name in HOSTILE},
        licence=HOSTILE[3],
        intended_use=HOSTILE[10],
        origin=({"file": HOSTILE[0], "from": HOSTILE[5], "sha256": "0"},),
    )
    confused = [Confused(HOSTILE[3], HOSTILE[14], 5, 0.1)]
    card = render(hostile, 1, confused)
    page = Page(card.html)
    rows = [row for row in page.rows if len(row) == 6]
    assert [row[0] for row in rows[1:]] == list(HOSTILE)
    assert len(page.rows) == 2 + len(HOSTILE) + len(metric_rows(passport.metrics)) + 1 + 8
    plain = Page(render(passport, 1).html)
    assert (page.tags, page.attributes) == (plain.tags, plain.attributes)
    assert [t for t in page.targets if t] == plain.targets
    # Renderers that let HTML through, or know formulas and mentions, meet none of these either.
    names = card.markdown.partition("## Metrics by class")[2].partition("## Limits")[0]
    assert not set("<>`$@{}[]*~\\") & set(names)
    assert "T-shirt/top" in names
    assert "ankle_boot" in names


def test_a_name_that_no_line_can_hold(passport):
    names = ("two\nlines", "\u202eback", "c", "d")
    text = render(with_classes(passport, dict.fromkeys(names, (0.5, 50))), 1)
    assert "| two lines |" in text.markdown
    assert "\u202e" not in text.markdown + text.html


def test_limits_are_facts(passport):
    classes = {"worst": (0.2, 100), "few": (0.9, 5), "none": (0.0, 0), "best": (1.0, 100)}
    warned = CheckResult(
        check="balance", severity="warning", passed=False, observed=20, limit=10, message="20 > 10"
    )
    changed = with_classes(passport, classes, image_shape=(8, 8, 3)).model_copy(
        update={
            "validation": passport.validation.model_copy(update={"results": (warned,)}),
            "metrics": {"calibration_error": 0.123},
        }
    )
    sentences = limits(changed, [Confused("worst", "best", 80, 0.8)])
    assert sentences == (
        "The classes with the lowest recall: worst (20.0%), few (90.0%).",
        "Fewer than 30 test images, so their numbers are rough: few (5).",
        "No test image, so nothing was measured: none.",
        "It classifies 80.0% of the test images of worst as best.",
        "On the test split, its confidence and its accuracy differ by 12.3 percentage points on "
        "average.",
        "It sees 8x8 pixels in colour. Any other image is resized to that, its aspect ratio is "
        "not kept.",
        "It assigns one of its 4 classes to every image, even to one that shows none of them.",
        "The validation of its data warned: 20 > 10.",
    )
    assert "| none | not measured |  | not measured | not measured | 0 |" in (
        render(changed, 1).markdown
    )


def test_a_metric_that_is_new_is_shown_under_its_name():
    zeal = {"zeal": 0.25, "zeal_low": 0.2, "zeal_high": 0.3}
    assert metric_rows({**zeal, "accuracy": 0.5, "big": 1e6}) == [
        ("accuracy", "50.00%", ""),
        ("big", "1,000,000", ""),
        ("zeal", "0.25", "0.2 to 0.3"),
    ]


@pytest.mark.parametrize(("count", "use"), [(4, 0), (200, 0), (4, 9000)])
def test_a_description_fits_and_says_what_it_lacks(passport, count, use):
    many = {f"class {number}": (0.5, 50) for number in range(count)}
    text = description(with_classes(passport, many, intended_use="word " * use), 1)
    assert len(text) <= 5000
    assert "data:image" not in text
    assert ("| class 1 |" in text) == (count == 4 and not use)
    assert ("`pipeline card tiny/1` writes" in text) == (count > 4 or use > 0)


def test_mlflow_shows_the_card(made, elsewhere, passport):
    version = versions.find("tiny/1")
    plots = made / "evaluation" / "dense" / "plots"
    publish(version, passport, plots)
    publish(version, passport, None)
    client = connect()
    assert client.get_model_version("tiny", "1").description == description(passport, 1)
    listed = {file.path for file in client.list_artifacts(version.run_id, "card")}
    assert listed == {"card/card.md", "card/card.html"}
    stored = Path(client.download_artifacts(version.run_id, "card/card.md", str(elsewhere)))
    assert stored.read_text() == render(passport, 1).markdown
    other = passport.run.model_copy(update={"run_id": "f" * 32})
    with pytest.raises(TrackingError, match=r"dvc repro --force train@dense"):
        publish(version, passport.model_copy(update={"run": other}), None)


def card(*arguments):
    result = CliRunner().invoke(app, ["card", *arguments])
    if result.exception is not None:
        raise result.exception
    return result.stdout.strip()


def test_the_command_writes_the_card_anywhere(made, elsewhere, passport):
    assert card("tiny@production") == "reports/tiny/card-1.html"
    plots = made / "evaluation" / "dense" / "plots"
    expected = render(passport, 1, most_confused(plots), plots)
    assert Path("reports/tiny/card-1.html").read_text() == expected.html
    assert card("tiny/1", "--output", "new/card.md") == "new/card.md"
    assert Path("new/card.md").read_text() == expected.markdown
    assert "of the test images of right as left &#36;." in expected.markdown
    with pytest.raises(ParamsError, match=r"card\.pdf is neither \.html nor \.md"):
        card("tiny/1", "--output", "card.pdf")
    with pytest.raises(TrackingError, match=r"there are: tiny@challenger"):
        card("tiny@nobody")


def test_what_it_says_of_loading_works(elsewhere, passport, capsys):
    Path("image.png").write_bytes(base64.b64decode(passport.examples[0].png))
    text = render(passport, 1).markdown.partition("## How to load it")[2]
    lines = [line.removeprefix("    ") for line in text.splitlines() if line.startswith("    ")]
    exec("\n".join(lines), {})
    probabilities = passport.examples[0].probabilities
    predicted = passport.data.class_names[probabilities.index(max(probabilities))]
    assert predicted in capsys.readouterr().out
