import numpy as np
import pytest
from PIL import Image

from pipeline.errors import ArtifactError
from pipeline.evaluation.figures import draw_confusion, draw_images, draw_reliability
from pipeline.evaluation.measures import reliability
from pipeline.evaluation.predictions import Predictions
from pipeline.training.curves import draw_augmented, draw_curves

HISTORY = {
    "epoch": [1.0, 2.0],
    "loss": [1.0, 0.5],
    "accuracy": [0.5, 0.8],
    "val_loss": [1.1, 0.7],
    "val_accuracy": [0.4, 0.7],
    "learning_rate": [0.001, 0.001],
}


def pixels(path):
    """Read a picture; one in a single colour shows nothing."""
    array = np.asarray(Image.open(path).convert("RGB"))
    assert array.std() > 5
    return array


def test_curves(tmp_path):
    draw_curves(tmp_path / "curves.png", HISTORY)
    pixels(tmp_path / "curves.png")


@pytest.mark.parametrize("channels", [1, 3])
def test_augmented_images_stand_in_rows_of_eight(tmp_path, channels):
    images = np.random.default_rng(0).integers(0, 256, (20, 6, 9, channels), dtype=np.uint8)
    draw_augmented(tmp_path / "a.png", images)
    assert pixels(tmp_path / "a.png").shape[1] == 800


def test_an_equal_picture_is_an_equal_file(tmp_path):
    for name in ("a.png", "b.png"):
        draw_curves(tmp_path / name, HISTORY)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("size", [2, 10, 50])
def test_confusion_of_any_size(tmp_path, size, normalised):
    counts = np.diag(np.arange(size)) + 1
    names = [f"class_{number} $x" for number in range(size)]
    draw_confusion(tmp_path / "c.png", counts, names, normalised=normalised)
    assert max(pixels(tmp_path / "c.png").shape) < 2000


def test_reliability(tmp_path):
    probabilities = np.random.default_rng(0).dirichlet([1, 1, 1], 50).astype(np.float32)
    bins = reliability(Predictions(("a", "b", "c"), np.arange(50) % 3, probabilities))
    draw_reliability(tmp_path / "r.png", bins, 0.1)
    pixels(tmp_path / "r.png")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("number", [0, 1, 36])
def test_images_gray_or_colour_and_none_at_all(tmp_path, channels, number):
    images = np.random.default_rng(0).integers(0, 256, (number, 8, 8, channels), np.uint8)
    draw_images(tmp_path / "i.png", images, [f"${n}" for n in range(number)], empty="no mistakes")
    array = np.asarray(Image.open(tmp_path / "i.png").convert("RGB"))
    assert array.min() < 100  # at least the text is there


def test_a_picture_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "x.png").mkdir()
    with pytest.raises(ArtifactError, match="cannot write"):
        draw_curves(tmp_path / "x.png", HISTORY)
