"""The features of a LiteRT file, and how far an image is from the training images by them."""

import keras
import numpy as np
import pytest

from pipeline.artifacts.models import TrainedModel
from pipeline.errors import ArtifactError
from pipeline.evaluation.export import export
from pipeline.evaluation.litert import LiteRTModel
from pipeline.evaluation.scoring import Scorer
from pipeline.guarantee.features import with_features
from pipeline.guarantee.training_features import TrainingFeatures, images_to_keep
from pipeline.models.build import build
from pipeline.models.parts import core
from tests.evaluated import made
from tests.tiny import images_of, tiny_plan

__all__ = ["made"]


def test_a_file_answers_with_what_its_last_layer_decides_by(made):
    trained, evaluation = made.models["dense"]
    content = trained.litert.read_bytes()
    assert with_features(with_features(content)) == with_features(content)
    images = made.splits.x("test")
    model = LiteRTModel(with_features(content))
    probabilities, features = model.with_features(images)
    np.testing.assert_array_equal(probabilities, LiteRTModel(content).probabilities(images))
    np.testing.assert_array_equal(probabilities, model.probabilities(images))
    np.testing.assert_allclose(probabilities, evaluation.probabilities, atol=1e-5)
    keras_model = keras.saving.load_model(trained.model, compile=False, safe_mode=True)
    before = keras.Model(keras_model.input, keras_model.layers[-1].input)
    np.testing.assert_allclose(features, before(images).numpy(), atol=1e-4)


@pytest.mark.long
def test_of_a_model_that_sees_several_views_it_is_one_of_them(made, tmp_path):
    plan = tiny_plan(layers=[{"conv": 4}, "flatten"], test_time_augmentation="flip_and_shift")
    model = build(plan.recipe, (8, 8, 1), 4, 0)
    trained = TrainedModel(tmp_path)
    for name in ("run.json",):
        (tmp_path / name).write_bytes((made.models["dense"][0].path / name).read_bytes())
    images = np.asarray(made.splits.x("test"))
    probabilities = Scorer(model).probabilities(images)
    export(model, trained, images, probabilities)
    litert = LiteRTModel(with_features(trained.litert.read_bytes()))
    answers, features = litert.with_features(images)
    np.testing.assert_allclose(answers, probabilities, atol=1e-4)
    assert features.shape == (len(images), core(model).layers[-1].input.shape[1])


def test_a_file_without_a_softmax_layer_is_named(made):
    trained, _ = made.models["dense"]
    content = trained.litert.read_bytes()
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    graph = model.subgraphs[0]
    graph.operators = graph.operators[:-1]
    graph.outputs = [graph.operators[-1].outputs[0]]
    import flatbuffers  # type: ignore[import-untyped]

    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    with pytest.raises(ArtifactError, match="no dense layer with a softmax"):
        with_features(bytes(builder.Output()))


def test_training_images_are_near_and_others_are_not(tmp_path):
    rng = np.random.default_rng(0)
    features = np.abs(rng.normal(5, 1, (300, 16))).astype(np.float32)
    known = TrainingFeatures.of(features)
    known.save(tmp_path / "a.npz")
    again = TrainingFeatures.load(tmp_path / "a.npz")
    again.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    np.testing.assert_allclose(again.distances(features).turned, 0, atol=2e-3)
    centred = features - features.mean(axis=0)
    spread = centred.T @ centred / len(features)
    exact = np.sqrt((centred @ np.linalg.inv(spread) * centred).sum(axis=1))
    np.testing.assert_allclose(again.distances(features).far, exact, rtol=0.03)
    like = again.distances(np.abs(rng.normal(5, 1, (300, 16))).astype(np.float32))
    assert again.distances(features * 3).far.min() > like.far.max()
    assert again.distances(features[:, ::-1] - 5).turned.min() > like.turned.max()
    same = TrainingFeatures.of(np.ones((5, 16), np.float32)).distances(features[:3])
    assert np.isfinite(same).all()
    (tmp_path / "a.npz").write_bytes(b"torn")
    with pytest.raises(ArtifactError, match="cannot read"):
        TrainingFeatures.load(tmp_path / "a.npz")


def test_long_features_are_compared_with_fewer_images_along_fewer_axes():
    known = TrainingFeatures.of(np.random.default_rng(0).random((40, 100_000), np.float32))
    assert known.axes.shape == (100_000, 20)
    assert images_to_keep(64) == 1000
    for size in (2_001, 10_000, 100_000):
        assert size * images_to_keep(size) <= 2_000_000
    assert images_to_keep(10**9) == 20


def test_noise_is_no_image_of_the_tiny_dataset(made):
    model = LiteRTModel(with_features(made.models["dense"][0].litert.read_bytes()))
    known = TrainingFeatures.of(model.with_features(np.asarray(made.splits.x("train")))[1])
    like = known.distances(model.with_features(images_of(np.arange(200) % 4, 9))[1])
    noise = np.random.default_rng(0).integers(0, 256, (200, 8, 8, 1)).astype(np.uint8)
    asked = known.distances(model.with_features(noise)[1])
    limits = [np.quantile(distances, 0.99) for distances in like]
    unlike = (asked.turned > limits[0]) | (asked.far > limits[1])
    assert unlike.mean() > 0.9
