"""layout: folders as people have them -> splits and classes."""

import re

import pytest

from pipeline.data.layout import layout
from pipeline.data.readers.listing import list_images
from pipeline.data.readers.reader import Entry
from pipeline.errors import DatasetError


def entries(*names, **more):
    """Entries whose content is their name."""
    return [Entry(name, name.encode, **more) for name in names]


def tree(*folders, classes=("ant", "bee"), count=2):
    return entries(*(f"{f}{c}/{n}.jpg" for f in folders for c in classes for n in range(count)))


def arranged(found, **options):
    made = layout(list_images(found), **options)
    return made.class_names, {
        split: len(made.of(split)) for split in (None, "train", "val", "test")
    }


def counts(**given):
    return {None: 0, "train": 0, "val": 0, "test": 0, **given}


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Training", "Testing"),
        ("Train", "Test"),
        ("TRAIN", "TEST"),
        ("training_set", "test_set"),
        ("train-set", "test-set"),
        ("training data", "test data"),
    ],
)
@pytest.mark.parametrize("around", ["", "archive/", "a/b/c/"])
def test_splits_have_the_usual_names(train, test, around):
    found = tree(f"{around}{train}/", f"{around}{test}/")
    assert arranged(found) == (("ant", "bee"), counts(train=4, test=4))


def test_a_split_may_have_a_longer_name_and_a_folder_around_its_classes():
    found = tree("seg_train/seg_train/", "seg_test/seg_test/")
    assert arranged(found) == (("ant", "bee"), counts(train=4, test=4))
    assert arranged(tree("train/images/", "test/images/"))[1] == counts(train=4, test=4)
    with pytest.raises(DatasetError, match="lies 'seg_pred', which is no split"):
        arranged(found + entries("seg_pred/seg_pred/1.jpg"))


@pytest.mark.parametrize("names", [("bullet_train", "bus"), ("toy_train", "bullet_train")])
def test_a_class_may_have_the_word_train_in_its_name(names):
    assert arranged(tree("", classes=names))[0] == tuple(sorted(names))
    deep = entries(*(f"{name}/{part}/1.jpg" for name in names for part in ("x", "y")))
    assert arranged(deep)[0] == tuple(sorted(names))


@pytest.mark.parametrize("name", ["val", "valid", "Validation", "dev"])
def test_a_validation_split_is_used(name):
    assert arranged(tree("train/", f"{name}/", "test/"))[1] == counts(train=4, val=4, test=4)


@pytest.mark.parametrize("around", ["", "flower_photos/", "a/dataset/flower_photos/"])
def test_folders_around_the_classes_are_skipped(around):
    assert arranged(tree(around)) == (("ant", "bee"), {**counts(), None: 4})


@pytest.mark.parametrize("other", ["unlabeled", "pred", "extra"])
def test_what_is_neither_split_nor_class_is_shown_with_the_folders(other):
    found = tree("train/", "test/") + entries(f"{other}/1.jpg", f"{other}/2.jpg")
    with pytest.raises(DatasetError, match=f"lies '{other}', which is no split") as caught:
        arranged(found)
    assert "train/, train/ant/, train/bee/" in str(caught.value)
    assert f"`ignore: [{other}]`" in str(caught.value)
    assert arranged(found, ignore=[other])[1] == counts(train=4, test=4)
    assert layout(list_images(found), [other]).ignored == {f"{other}/": 2}


def test_a_folder_without_classes_beside_train_alone():
    with pytest.raises(DatasetError, match="lies 'unlabeled', which is no split"):
        arranged(tree("train/") + entries("unlabeled/1.jpg"))


def test_an_empty_test_folder_of_a_competition_is_explained():
    with pytest.raises(DatasetError, match=r"'test', which has no images in class folders"):
        arranged(tree("train/") + entries("test/1.jpg", "test/2.jpg"))


def test_two_folders_that_mean_one_split():
    with pytest.raises(DatasetError, match="'train' and 'training' both mean train"):
        arranged(tree("train/", "training/", "test/"))


def test_what_systems_leave_behind_is_ignored_and_counted():
    system = entries(
        "ant/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg",
        "$RECYCLE.BIN/",
        "$RECYCLE.BIN/gone.jpg",
        "System Volume Information/",
        "lost+found/",
        ".ipynb_checkpoints/1-checkpoint.jpg",
        "bee/.2.jpg.swp",
    )
    made = layout(list_images(tree("") + system))
    assert made.class_names == ("ant", "bee")
    assert made.ignored == {"@eaDir": 1, "$RECYCLE.BIN": 1, "hidden": 2}


def test_two_spellings_of_a_name_are_one_class():
    composed, decomposed = "b\u00e4r", "ba\u0308r"
    found = tree("train/", classes=(composed, "ant")) + tree("test/", classes=(decomposed, "ant"))
    assert arranged(found) == (("ant", composed), counts(train=4, test=4))


def test_a_format_that_says_the_class_is_believed():
    found = entries("1.jpg", "x/2.jpg", label="cat") + entries("3.jpg", label="dog", split="test")
    found += entries("4.jpg", label="cat", split="test")
    found += entries("5.jpg", label="dog")
    assert arranged(found) == (("cat", "dog"), counts(train=3, test=2))


def test_a_group_is_found_in_the_name():
    found = tree("")
    made = layout(list_images(found, re.compile(r"(?P<group>[^/]+)/")))
    assert {image.key for image in made.images} == {"ant", "bee"}
    with pytest.raises(DatasetError, match=r"does not match 'ant/0\.jpg'"):
        list_images(found, re.compile("(?P<group>p[0-9]+)_"))
