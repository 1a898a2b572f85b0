import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import ParamsError
from pipeline.validation.checks import BY_NAME, CHECKS, check_names
from pipeline.validation.data_docs import save_data_docs
from pipeline.validation.expectations import evaluate
from pipeline.validation.limits import Limits
from pipeline.validation.manifest import build_manifest
from pipeline.validation.measures import Facts, shift
from tests.raw import TRAIN, raw_dataset


def facts_of(raw, histogram, accepted=None, ignored=None):
    info = raw.info
    return Facts(
        class_names=info.class_names,
        image_shape=info.image_shape,
        expected=info.expected or info.counts,
        histograms=histogram.tolist(),
        accepted=accepted,
        ignored=ignored or {},
    )


# One kind of damage for every check: what is done, the number seen, the first that is named.
def unreadable(x, y, files):
    x[3], files.loc[3, "error"] = 0, "truncated"


def another_shape(x, y, files):
    return x[:, :7], y


def scaled(x, y, files):
    x[4] = x[4] > 100


def blank(x, y, files):
    x[5] = 77


def label_outside(x, y, files):
    y[6] = 10


def class_lost(x, y, files):
    y[TRAIN:][y[TRAIN:] == 2] = 3


def uneven(x, y, files):
    y[:TRAIN][100:] = 1
    y[:10] = range(10)
    y[10:100] = 0


def repeated(x, y, files):
    x[8], y[8] = x[7], y[7]


def two_labels(x, y, files):
    x[9], y[9], y[7] = x[7], 9, 7


def leaked(x, y, files):
    x[TRAIN] = x[11]
    y[TRAIN] = y[11]


def nearly_repeated(x, y, files):
    x[TRAIN + 3] = np.minimum(x[12] * 0.9 + 20, 255)


def one_group_in_two_splits(x, y, files):
    files.loc[[2, TRAIN + 5, TRAIN + 6], "key"] = "a patient"
    files.loc[[3, 4], "key"] = "another"


DAMAGES = {
    "readable": (unreadable, 1 / 1797, "train/0003.png"),
    "dimensions": (another_shape, 1, "train/0000.png"),
    "pixel_range": (scaled, 1 / 1797, "train/0004.png"),
    "constant": (blank, 1 / 1797, "train/0005.png"),
    "labels": (label_outside, 1 / 1797, "train/0006.png"),
    "classes_in_every_split": (class_lost, 1, "test: no 2"),
    "balance": (uneven, 1338, None),
    "row_counts": (None, 60, "train: 1437, not 1497"),
    "duplicates": (repeated, 1 / 1797, "train/0008.png = train/0007.png"),
    "label_conflict": (two_labels, 2 / 1797, "train/0007.png is 7"),
    "leakage": (leaked, 1 / 360, "test/1437.png = train/0011.png"),
    "near_duplicates": (nearly_repeated, 1 / 1797, "test/1440.png ~ train/0012.png"),
    "group_leakage": (one_group_in_two_splits, 2 / 360, "test/1442.png of group a patient"),
    "ignored": (None, 3, "2 .txt"),
    "shift": (None, 0.5, None),
}


def results_for(name, folder, limits):
    damage, _, _ = DAMAGES[name]
    expected = {"train": 1497, "test": 360} if name == "row_counts" else None
    raw = raw_dataset(folder, damage, expected)
    manifest, histogram = build_manifest(raw)
    # All of it was black: the distance is then the mean brightness.
    accepted = ((1, *[0] * 63),) if name == "shift" else None
    ignored = (
        {
            ".txt": 2,
            "without an ending": 1,
            "hidden": 4,
            "System Volume Information": 2,
            "my folder/": 3,
        }
        if name == "ignored"
        else None
    )
    facts = facts_of(raw, histogram, accepted, ignored)
    return evaluate(manifest, facts, {name: limits})[0], manifest


@pytest.mark.parametrize("name", BY_NAME)
def test_every_check_sees_its_damage(name, tmp_path):
    assert name in DAMAGES, f"DAMAGES in this file lacks an example for the check {name}"
    _, observed, offender = DAMAGES[name]
    results, manifest = results_for(name, tmp_path, Limits(warning=0, error=0))
    mine = [result for result in results if result.check == name]
    assert [result.severity for result in mine] == ["error", "warning"]
    for result in mine:
        assert not result.passed
        if name == "shift":
            assert result.observed == pytest.approx(manifest["mean"].mean() / 255, abs=0.01)
        else:
            assert result.observed == pytest.approx(observed)
        assert BY_NAME[name].meaning in result.message
        assert result.message.endswith(BY_NAME[name].advice)
        assert result.files[:1] == ((offender,) if offender else ())


@pytest.mark.parametrize("name", BY_NAME)
def test_a_check_passes_at_its_limit_and_null_leaves_it_out(name, tmp_path):
    results, _ = results_for(name, tmp_path, Limits(error=0))
    observed = next(result.observed for result in results if result.check == name)
    results, _ = results_for(name, tmp_path, Limits(error=observed))
    mine = [result for result in results if result.check == name]
    assert [(result.severity, result.passed) for result in mine] == [("error", True)]


def test_what_cannot_be_read_counts_once_only(tmp_path):
    def damage(x, y, files):
        x[:2], files.loc[:1, "error"] = 0, "truncated"

    raw = raw_dataset(tmp_path, damage)
    manifest, histogram = build_manifest(raw)
    results, _ = evaluate(manifest, facts_of(raw, histogram), {})
    assert {result.check for result in results if not result.passed} == {"readable"}


def test_sound_data_pass_every_check_in_their_order(tmp_path):
    raw = raw_dataset(tmp_path)
    manifest, histogram = build_manifest(raw)
    results, _ = evaluate(manifest, facts_of(raw, histogram), {})
    assert all(result.passed for result in results)
    assert list(dict.fromkeys(result.check for result in results)) == [c.name for c in CHECKS]


def test_an_empty_split_is_named_not_stumbled_over(tmp_path):
    raw = raw_dataset(tmp_path)
    manifest, histogram = build_manifest(raw)
    train = manifest[manifest["split"] == "train"]
    results, _ = evaluate(train, facts_of(raw, histogram), {})
    failed = {result.check: result.observed for result in results if not result.passed}
    assert failed == {"classes_in_every_split": 10, "row_counts": 360}


def test_the_distance_of_a_changed_number_of_channels_is_that_of_all_together():
    gray, color = ((10, *[0] * 63),), ((10, *[0] * 63),) * 3
    facts = Facts(
        class_names=("a",), image_shape=(8, 8, 1), expected={}, histograms=gray, accepted=color
    )
    assert shift(pd.DataFrame(), facts).observed == 0


@pytest.mark.parametrize(
    ("name", "limits", "message"),
    [
        ("leekage", Limits(error=0), "unknown check; allowed: readable, .*did you mean leakage"),
        ("leakage", Limits(error=2), "received 2; allowed: a share from 0 to 1"),
    ],
)
def test_limits_that_make_no_sense_are_refused(name, limits, message):
    with pytest.raises(ParamsError, match=message):
        check_names({name: limits})


def test_the_names_are_known_without_great_expectations():
    code = (
        "import sys; from pipeline.validation.checks import check_names; check_names({}); "
        "assert not {'great_expectations', 'pandas'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_file_names_stay_text_in_the_data_docs(tmp_path):
    def damage(x, y, files):
        x[5] = 0
        files.loc[5, ["file", "error"]] = '<img src="http://a.test/b.png">', "<script>x</script>"
        files.loc[6, "file"] = "<b>"
        y[6] = 10

    raw = raw_dataset(tmp_path, damage)
    manifest, histogram = build_manifest(raw)
    results, details = evaluate(manifest, facts_of(raw, histogram), {})
    page = save_data_docs(details, results, raw.info.name, tmp_path).read_text()
    assert "&lt;img src=" in page
    assert not any(tag in page for tag in ("<img", "<script", "<b>"))
