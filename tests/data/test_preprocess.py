from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.artifacts.files import dvc_md5
from pipeline.artifacts.validation import CheckResult, ValidationReport
from pipeline.data import preprocess as module
from pipeline.data.preprocess import copy_rows, preprocess, split_train
from pipeline.data.samples import save_samples
from pipeline.data.settings import Preprocess
from pipeline.errors import ArtifactError, DatasetError, ValidationFailed
from tests.raw import raw_dataset


def report_of(raw, *results):
    return ValidationReport(dataset="digits", raw_md5=dvc_md5(raw.path), results=results)


def failed(check, severity):
    return CheckResult(
        check=check, severity=severity, passed=False, observed=1, limit=0, message="so"
    )


def run(folder, raw, report, **settings):
    return preprocess(raw, report, Preprocess(**settings), folder / "out", folder / "samples.png")


def test_the_splits_hold_every_image_once(tmp_path):
    raw = raw_dataset(tmp_path)
    splits = run(tmp_path, raw, report_of(raw, failed("balance", "warning")))
    info = splits.info
    assert info.counts == {"train": 1295, "val": 142, "test": 360}
    assert info.raw_md5 == dvc_md5(raw.path)
    assert info.warnings == ("balance",)
    assert info.md5 == {f.name: dvc_md5(f) for f in splits.path.glob("[xy]_*.npy")}
    for split in ("train", "val", "test"):
        contents = [int(sha256(x.tobytes()).hexdigest()[:16], 16) for x in splits.x(split)]
        assert splits.contents(split).tolist() == contents
    assert (splits.x("train").dtype, splits.y("val").dtype) == (np.uint8, np.int64)
    for name in ("x", "y"):
        read = getattr(splits, name)
        np.testing.assert_array_equal(read("test"), getattr(raw, name)("test"))
    train = sorted((x.tobytes(), y) for x, y in zip(raw.x("train"), raw.y("train"), strict=True))
    parted = sorted(
        (x.tobytes(), y)
        for split in ("train", "val")
        for x, y in zip(splits.x(split), splits.y(split), strict=True)
    )
    assert parted == train


def test_running_again_makes_equal_files_and_a_seed_another_split(tmp_path):
    def contents():
        return {
            f: f.read_bytes() for f in [*(tmp_path / "out").iterdir(), tmp_path / "samples.png"]
        }

    raw = raw_dataset(tmp_path)
    run(tmp_path, raw, report_of(raw))
    before = contents()
    run(tmp_path, raw, report_of(raw))
    assert contents() == before
    run(tmp_path, raw, report_of(raw), seed=1)
    assert contents()[tmp_path / "out" / "y_val.npy"] != before[tmp_path / "out" / "y_val.npy"]


def test_a_dataset_that_failed_is_refused_and_earlier_results_stay(tmp_path):
    raw = raw_dataset(tmp_path)
    before = run(tmp_path, raw, report_of(raw)).info
    with pytest.raises(ValidationFailed, match="digits did not pass: leakage"):
        run(tmp_path, raw, report_of(raw, failed("leakage", "error")))
    assert run(tmp_path, raw, report_of(raw)).info == before


def test_a_dataset_that_changed_since_is_refused(tmp_path):
    raw = raw_dataset(tmp_path)
    report = report_of(raw)
    raw.save_split("test", raw.x("test")[::-1], raw.y("test")[::-1])
    with pytest.raises(ValidationFailed, match=r"changed since it was validated.*validate again"):
        run(tmp_path, raw, report)
    assert not (tmp_path / "out").exists()


def test_a_disk_that_refuses_leaves_no_metadata_and_one_line(tmp_path):
    raw = raw_dataset(tmp_path)
    (tmp_path / "out").write_text("a file where the folder should be")
    with pytest.raises(ArtifactError, match="cannot write"):
        run(tmp_path, raw, report_of(raw))


@settings(max_examples=50, deadline=None)
@given(
    counts=st.lists(st.integers(2, 30), min_size=1, max_size=6),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**31 - 1),
)
def test_every_class_is_in_both_parts_and_in_order(counts, fraction, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    names = tuple(map(str, range(len(counts))))
    train, val = split_train(labels, names, fraction, seed)
    assert sorted([*train, *val]) == list(range(len(labels)))
    assert (np.diff(train) > 0).all()
    assert (np.diff(val) > 0).all()
    drawn = np.bincount(labels[val], minlength=len(counts))
    assert ((drawn >= 1) & (drawn < counts)).all()
    assert (np.abs(drawn - fraction * np.array(counts)) <= 1).all()


def test_a_class_too_small_to_be_split_is_named_with_its_count():
    with pytest.raises(DatasetError, match="class 'dog' has 1 training images; at least 2"):
        split_train(np.array([0, 0, 1]), ("cat", "dog"), 0.5, 0)


def test_copying_in_chunks_is_the_same_as_saving(tmp_path, monkeypatch):
    source = np.arange(2000, dtype=np.int64).reshape(100, 4, 5)
    rows = np.array([3, 4, 50, 99])
    monkeypatch.setattr(module, "CHUNK_BYTES", 3 * source[0].nbytes)
    np.save(tmp_path / "source.npy", source)
    md5 = copy_rows(tmp_path / "source.npy", rows, tmp_path / "some.npy")
    np.save(tmp_path / "whole.npy", source[rows])
    assert (tmp_path / "some.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
    assert md5 == dvc_md5(tmp_path / "some.npy")


@pytest.mark.parametrize(
    ("shape", "classes"), [((8, 8, 1), 2), ((5, 9, 3), 10), ((200, 100, 3), 3), ((8, 8, 3), 25)]
)
def test_the_picture_has_a_row_per_class_up_to_a_cap(shape, classes, tmp_path):
    names = ("$x^", "猫", "a" * 200, *map(str, range(classes)))[:classes]
    y = np.arange(classes * 3) % classes
    x = np.random.default_rng(0).integers(0, 256, (len(y), *shape), np.uint8)
    save_samples(x, y, names, tmp_path / "samples.png")
    with Image.open(tmp_path / "samples.png") as picture:
        picture.load()
        assert picture.info.keys() <= {"dpi"}
        if classes < 20:
            step = -(-max(shape) // 96)
            cell = (shape[0] / step + 4) / (shape[1] / step + 4)
            assert picture.height == pytest.approx(84 * cell * classes, abs=30)
        else:
            assert picture.height < 84 * 22
