"""The accuracy on corrupted images, of models of which it is known."""

import numpy as np
import pytest

from pipeline.artifacts.models import Evaluation
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.robustness.corrupted import FEWEST_IMAGES, corrupted, samples
from pipeline.evaluation.robustness.corruptions import CORRUPTIONS
from pipeline.evaluation.robustness.reports import save_corrupted
from tests.tiny import images_of

Y = np.arange(90) % 2


def by_brightness(images):
    bright = images.mean(axis=(1, 2, 3), dtype=float) > 120
    return np.stack([~bright, bright], axis=1).astype(np.float32)


def test_what_a_model_goes_by_is_what_it_fails_without(tmp_path):
    x = images_of(Y, 0)
    found = corrupted(by_brightness, x, Predictions(("dark", "bright"), Y, by_brightness(x)))
    by_kind = {
        kind.name: [cell.accuracy for cell in found.cells if cell.corruption == kind.name]
        for kind in CORRUPTIONS
    }
    assert by_kind["brightness"][0] == 1
    assert by_kind["brightness"][5] < 0.8
    assert by_kind["blur"] == by_kind["contrast"] == [1] * 6
    mean = np.mean([cell.accuracy for cell in found.cells if cell.severity])
    assert found.accuracy == pytest.approx(mean)
    assert found.interval[0] < found.accuracy < found.interval[1]
    save_corrupted(found, Evaluation(tmp_path))
    assert len((tmp_path / "predictions/corruptions.csv").read_text().splitlines()) == 37
    again = corrupted(by_brightness, x, Predictions(("dark", "bright"), Y, by_brightness(x)))
    assert again == found


@pytest.mark.parametrize(
    ("count", "shape", "size"),
    [(360, (8, 8, 1), 360), (10_000, (28, 28, 1), 500), (330, (224, 224, 3), FEWEST_IMAGES)],
)
def test_large_images_are_sampled_more_sparsely_and_each_corruption_has_its_own(count, shape, size):
    found = samples(count, shape)
    assert [len(np.unique(rows)) for rows in found] == [size] * len(CORRUPTIONS)
    assert len(np.unique(np.concatenate(found))) == min(count, size * len(CORRUPTIONS))
