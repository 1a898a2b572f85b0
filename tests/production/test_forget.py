"""Images that are to be forgotten: the list, what obeys it, and what the registry says."""

import csv
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data import datasets, forgotten
from pipeline.data.forgotten import COLUMNS, FORGOTTEN, ForgottenImage
from pipeline.data.ingest import ingest
from pipeline.data.known import ingest_known
from pipeline.data.settings import DatasetPlan, ImageFolder
from pipeline.errors import ArtifactError, ParamsError
from pipeline.production.forget import flagged, forget, plan_forgetting
from pipeline.registry import model_files, versions
from pipeline.reports import card
from pipeline.reports.comparing import sides
from pipeline.tracking.store import connect
from pipeline.validation.validate import validate
from tests.images import encode, files, write
from tests.ingested import ingested, picture
from tests.promotable import PARAMS, run, two
from tests.tiny import images_of

__all__ = ["two"]

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)


@given(reason=TEXT, who=TEXT, number=st.integers(0, 2**64))
def test_any_reason_comes_back_on_one_line(tmp_path_factory, reason, who, number):
    path = tmp_path_factory.mktemp("list") / "forgotten.csv"
    image = ForgottenImage(content=f"{number:064x}", reason=reason, who=who, when="now")
    forgotten.save([image, image], path)
    kept = {"reason": " ".join(reason.split()), "who": " ".join(who.split())}
    assert forgotten.load(path) == (image.model_copy(update=kept),) * 2
    assert len(path.read_text().split("\n")) == 4


@pytest.mark.parametrize(
    "text",
    ["", "content,reason\n", f"{','.join(COLUMNS)}\nabc,why,me,now\n", "\udcff\n"],
)
def test_a_torn_list_lets_nothing_back_in(tmp_path, text):
    path = tmp_path / "forgotten.csv"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ArtifactError, match=r"forgotten\.csv"):
        forgotten.contents(path)
    assert forgotten.contents(tmp_path / "none.csv") == frozenset()


def test_own_images_on_the_list_are_left_out_and_counted(tmp_path):
    source = write(tmp_path / "pets", files(count=6))
    entry = ImageFolder(source=str(source), image_size=(8, 8))
    plan, raw = DatasetPlan(name="pets", entry=entry), tmp_path / "raw"
    before = ingest(plan, raw)
    names = list(before._column("file", "train"))
    content = next(before._column("content", "train"))
    after = ingest(plan, raw, forgotten={content, "0" * 64})
    assert list(after._column("file", "train")) == names[1:]
    assert after.info.forgotten == 1
    assert sum(after.info.counts.values()) == 11
    report = validate(after, {}, tmp_path / "out", tmp_path / "accepted.json")
    message = next(row.message for row in report.results if row.check == "ignored")
    assert "1 images that data/forgotten.csv names" in message


def test_images_of_a_known_dataset_are_left_out_by_their_pixels(tmp_path):
    raw = ingest_known(datasets.get("digits"), tmp_path / "raw")
    names = {next(raw._column("content", split)) for split in ("train", "test")}
    origin = raw.info.origin
    raw = ingest_known(datasets.get("digits"), tmp_path / "raw", forgotten=names)
    assert raw.info.counts == raw.info.expected == {"train": 1437, "test": 358}
    assert (raw.info.forgotten, raw.info.origin) == (2, origin)
    assert validate(raw, {}, tmp_path / "out", tmp_path / "accepted.json").passed


@pytest.fixture
def photo(two, tmp_path):
    """Return a file of an image that both versions were trained on."""
    ingested(two)
    return picture(two.splits.x("train")[9], tmp_path / "photo.png")


def told(*arguments):
    done = run("forget", *map(str, arguments), "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def state_of(number):
    version = versions.find(f"tiny/{number}")
    return version.forgotten, connect().get_model_version("tiny", str(number)).description


def test_forgetting_is_said_first_and_agreed_to(two, photo):
    before = state_of(2)
    found = told(photo, "--reason", "asked to", "--dry-run")
    assert not found["done"]
    assert [(row["version"], row["forgotten"]) for row in found["versions"]] == [(1, 1), (2, 1)]
    done = run("forget", str(photo), "--reason", "asked to")
    assert isinstance(done.exception, ParamsError)
    assert "agree with --yes" in str(done.exception)
    for reason in (" ", "x" * 501):
        done = run("forget", str(photo), "--reason", reason, "--yes")
        assert isinstance(done.exception, ParamsError)
    assert not (two.folder / FORGOTTEN).exists()
    assert state_of(2) == before


def test_a_forgotten_image_is_listed_and_the_versions_made_with_it_say_so(two, photo, tmp_path):
    found = told(photo, "--reason", "asked to", "--who", "me", "--yes")
    assert [row["version"] for row in found["versions"]] == [1, 2]
    with (two.folder / FORGOTTEN).open(newline="") as file:
        rows = list(csv.DictReader(file))
    pixels = found["images"][0]["places"][0]["content"]
    assert {found["images"][0]["content"], pixels} == {row["content"] for row in rows}
    assert {(row["reason"], row["who"]) for row in rows} == {("asked to", "me")}
    count, description = state_of(1)
    assert count == 1
    assert "made with an image that is kept out of the data since" in description
    assert "kept out of the data since" in run("lineage", "tiny/2").stdout
    assert run("card", "tiny/2", "--output", "card.md").exit_code == 0
    assert "kept out of the data since" in (two.folder / "card.md").read_text()
    assert sides.load("tiny/1").forgotten == 1
    compared = run("compare", "tiny/1", "tiny/2", "--no-track")
    assert compared.exit_code == 0, compared.output
    assert "kept out of the data since" in " ".join(compared.stdout.split())
    # Said once more, nothing is doubled.
    again = told(photo, "--reason", "asked to", "--yes")
    assert again["added"] == []
    with (two.folder / FORGOTTEN).open(newline="") as file:
        assert list(csv.DictReader(file)) == rows


def test_what_looks_like_it_and_what_was_only_tested_on_is_kept(two, photo, tmp_path):
    test = two.splits.x("test")[4]
    found = told(picture(test, tmp_path / "test.png"), "--reason", "why", "--yes")
    assert found["versions"] == []
    like = picture((test * 0.9 + 10).astype("uint8"), tmp_path / "like.png")
    found = told(like, "--reason", "why", "--yes")
    assert found["images"][0]["places"][0]["how"] == "looks like it"
    listed = {row["content"] for row in found["added"]}
    assert found["images"][0]["places"][0]["content"] not in listed
    text = run("forget", str(like), "--reason", "why", "--dry-run").stdout
    assert "it is kept, unless it is named too" in text
    assert state_of(2)[0] == 0


@pytest.mark.parametrize(("rule", "passes"), [("warn", True), ("refuse", False)])
def test_a_version_made_with_it_is_promoted_only_where_the_rule_allows(two, photo, rule, passes):
    text = PARAMS.replace("margin: 0.005", f"margin: 0.005, allow_dirty: true, forgotten: {rule}")
    (two.folder / "params.yaml").write_text(text)
    told(photo, "--reason", "asked to", "--yes")
    done = run("promote", "tiny", "2", "--json")
    answers = {row["name"]: row for row in json.loads(done.stdout)["decision"]["checks"]}
    assert answers["forgotten"]["passed"] is passes
    assert answers["forgotten"]["value"] == 1
    assert done.exit_code == (0 if passes else 3), done.output
    assert versions.alias_holders("tiny")["production"] == (2 if passes else 1)


def test_two_who_forget_at_once_lose_nothing(two, photo, tmp_path):
    other = picture(two.splits.x("train")[10], tmp_path / "other.png")
    planned = [plan_forgetting([file], "why", root=two.folder) for file in (photo, other, photo)]
    for each in planned:
        forget(each, card.describe, two.folder)
    assert len(forgotten.load(two.folder / FORGOTTEN)) == 4
    assert plan_forgetting([other], "why", root=two.folder).made_with[0].forgotten == 2


def test_a_version_that_is_newer_than_the_list_is_flagged_when_it_is_asked_about(two, photo):
    version = versions.find("tiny/2")
    assert flagged(version, card.describe, two.folder) is version
    content = hashlib.sha256(two.splits.x("train")[9].tobytes()).hexdigest()
    image = ForgottenImage(content=content, reason="why", who="me", when="now")
    forgotten.save([image], two.folder / FORGOTTEN)
    assert flagged(version, card.describe, two.folder, dry_run=True).forgotten == 1
    assert state_of(2)[0] == 0
    assert flagged(version, card.describe, two.folder).forgotten == 1
    assert state_of(2)[0] == 1
    assert model_files.read_images(version) is not None


def test_an_image_that_is_nowhere_is_kept_out_as_well(two, photo, tmp_path):
    nowhere = tmp_path / "nowhere.png"
    nowhere.write_bytes(encode(seed=3))
    found = told(nowhere, "--reason", "not ours", "--yes")
    assert found["versions"] == []
    assert found["images"][0]["content"] in {row["content"] for row in found["added"]}
    more = picture(images_of([3], 7)[0], tmp_path / "more.png")
    told(more, "--reason", "nor this", "--yes")
    assert len(forgotten.contents(two.folder / FORGOTTEN)) == 4
