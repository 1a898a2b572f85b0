"""`group: near_duplicates`: images that nearly repeat one another are in one split."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.artifacts.datasets import RawDataset
from pipeline.data.ingest import ingest
from pipeline.data.preprocess import split_train
from pipeline.data.settings import DatasetPlan, ImageFolder
from tests.images import write

PICTURES = 30


def photo(picture: int, version: int) -> bytes:
    """Return a picture, a little lighter in each version."""
    coarse = np.random.default_rng(picture).integers(40, 180, (6, 6, 3), np.uint8)
    image = Image.fromarray(coarse).resize((48, 48), Image.Resampling.BICUBIC)
    pixels = np.asarray(image).astype(int) + 2 * version
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "png")
    return buffer.getvalue()


def take(source: Path, output: Path) -> RawDataset:
    entry = ImageFolder(source=str(source), image_size=(48, 48), group="near_duplicates")
    return ingest(DatasetPlan(name="pets", entry=entry), output, progress=False)


def sides(raw: RawDataset) -> pd.DataFrame:
    """Return each image with its split, that of validation taken out of train."""
    files = pd.read_parquet(raw.files)
    labels, keys = raw.y("train"), raw.keys("train")
    _, val = split_train(np.array(labels), raw.info.class_names, 0.3, 0, keys, raw.sha256("train"))
    files.loc[val, "split"] = "val"
    files["picture"] = [name.rsplit("/")[-1].split("-")[0] for name in files["file"]]
    return files


# Of each picture one version, in two classes; then others of some of them come.
FIRST = {f"{'ab'[n % 2]}/{n}-0.png": photo(n, 0) for n in range(PICTURES)}
LATER = st.lists(
    st.tuples(st.integers(0, PICTURES - 1), st.integers(1, 6)), min_size=1, max_size=30, unique=True
)


@settings(deadline=None, max_examples=5)
@given(later=LATER)
def test_groups_are_whole_and_none_moves_from_train_to_test(tmp_path_factory, later):
    here = tmp_path_factory.mktemp("groups")
    source = write(here / "pets", FIRST)
    before = sides(take(source, here / "raw")).set_index("file")["split"]
    write(source, {f"{'ab'[n % 2]}/{n}-{v}.png": photo(n, v) for n, v in later})
    after = sides(take(source, here / "raw"))
    assert (after.groupby("picture")["split"].nunique() == 1).all()
    moved = before.to_frame("before").join(after.set_index("file")["split"].rename("after"))
    # Where chance leaves a class without a test image, the group with the lowest hash has to do.
    tested = after[after["split"] == "test"]
    forced = tested.groupby(tested["file"].str[0])["picture"].nunique() == 1
    for at, row in moved[moved["before"] == "train"].iterrows():
        assert row["after"] != "test" or forced[str(at)[0]]
    fresh = sides(take(source, here / "fresh"))
    pd.testing.assert_frame_equal(after, fresh)


def test_images_of_one_key_in_the_table_are_linked_too(tmp_path):
    source = write(tmp_path / "pets", FIRST | {"a/0-1.png": photo(0, 1)})
    group = {"a/0-1.png": "x", "b/1-0.png": "x"}
    rows = [f"{name},{name[0]},{group.get(name, name)}" for name in (*FIRST, "a/0-1.png")]
    (source / "labels.csv").write_text("\n".join(["file,label,group", *rows]))
    files = pd.read_parquet(take(source / "labels.csv", tmp_path / "raw").files).set_index("file")
    joined = files.loc[["a/0-0.png", "a/0-1.png", "b/1-0.png"]]
    assert joined["key"].nunique() == joined["split"].nunique() == 1
    assert joined["key"].iloc[0] == f"near-duplicates of {joined['content'].min()}"
    assert files["key"].nunique() == PICTURES - 1


def test_what_group_may_be_is_said():
    with pytest.raises(ValueError, match="and is not near_duplicates"):
        ImageFolder(source="pets", image_size=(8, 8), group="near_duplicate")
