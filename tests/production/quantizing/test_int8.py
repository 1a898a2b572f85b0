"""Models in 8 bits take and give what their originals do."""

import numpy as np

from pipeline.evaluation.export import export
from pipeline.evaluation.litert import LiteRTModel
from pipeline.models.build import build
from pipeline.models.recipes import Recipe
from pipeline.production.quantizing.int8 import quantize
from tests.evaluation.test_litert import save


def test_softmax_and_the_mean_of_views_stay_exact(tmp_path):
    content = {
        "layers": [{"conv_block": 8, "max_pool": 2}, "flatten", {"dense": 16}],
        "test_time_augmentation": "flip",
        "epochs": 1,
    }
    model = build(Recipe.model_validate(content), (8, 8, 3), 5, seed=0)
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)
    trained, expected = save(model, tmp_path), np.asarray(model(images))
    export(model, trained, images, expected)
    file = trained.litert.read_bytes()
    small = quantize(file, images)
    assert len(small) < len(file)
    assert quantize(file, images) == small, "another file each time"
    found = LiteRTModel(small).probabilities(images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(found, expected, atol=0.1)
    assert len(np.unique(found)) > 150, "probabilities are rounded to 8 bits"
