import keras
import numpy as np
import pytest
from PIL import Image

from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.gradcam import choose, draw_gradcam, heat_maps, last_feature_map, overlay
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.scoring import load_checked
from pipeline.models.backbones import build as backbones
from pipeline.models.build import build
from pipeline.models.recipes import Recipe
from pipeline.tracking.store import connect
from pipeline.training.train import train
from tests.models.test_backbones import ONE_OF_ALL
from tests.tiny import images_of, tiny_plan, tiny_splits


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Train and evaluate a model with convolutions."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        (folder / "params.yaml").touch()
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        splits = tiny_splits(folder / "data")
        layers = [{"conv": 8}, {"conv": 8}, "flatten", {"dense": 16}]
        plan = tiny_plan("cnn", layers=layers)
        trained = train(splits, plan, folder / "cnn", device="cpu")
        yield trained, evaluate(trained, splits, folder / "evaluation")


def model_of(*layers, shape=(8, 8, 1), classes=2):
    return build(Recipe.model_validate({"layers": list(layers), "epochs": 1}), shape, classes, 0)


def maps_of(model, images, labels):
    return heat_maps(model, last_feature_map(model), images, np.asarray(labels))


def random_images(number, shape=(8, 8, 1)):
    return np.random.default_rng(0).integers(0, 256, (number, *shape), np.uint8)


def share_on_the_left(heat):
    return heat[:, : heat.shape[1] // 2].sum() / heat.sum()


# maps


def test_the_map_is_the_evidence_where_the_weights_are_set_by_hand():
    model = model_of({"conv": 1, "kernel_size": 1}, "global_average_pool")
    model.set_weights([np.ones((1, 1, 1, 1)), np.zeros(1), np.array([[1.0, -1.0]]), np.zeros(2)])
    image = random_images(1)
    speaks_for, speaks_against = maps_of(model, image.repeat(2, axis=0), [0, 1])
    np.testing.assert_allclose(speaks_for, image[0, ..., 0] / image.max(), rtol=1e-5)
    assert not speaks_against.any()


@pytest.mark.parametrize("kind", ONE_OF_ALL)
def test_the_map_of_a_backbone_is_of_its_last_features(kind, monkeypatch):
    monkeypatch.setattr(backbones, "_load", lambda *_: None)
    model = model_of({"backbone": kind.name, "alpha": kind.alpha}, {"dense": 4}, shape=(96, 64, 3))
    maps = maps_of(model, random_images(2, (96, 64, 3)), [0, 1])
    assert maps.shape == (2, 3, 2)
    assert np.isfinite(maps).all()


def test_a_sure_answer_has_a_map_too():
    model = model_of({"conv": 1, "kernel_size": 1}, "global_average_pool")
    dense = np.array([[1e4, -1e4]])
    model.set_weights([np.ones((1, 1, 1, 1)), np.zeros(1), dense, np.zeros(2)])
    image = random_images(1)
    assert model.predict(image, verbose=0)[0, 0] == 1  # its gradient is zero
    assert maps_of(model, image, [0]).max() == 1


def patches(seed, number=128):
    """Draw noise, every other one with a bright patch somewhere: images, labels, patches."""
    rng = np.random.default_rng(seed)
    images, y = rng.integers(0, 60, (number, 16, 16, 1)), np.arange(number) % 2
    patch = np.zeros((number, 16, 16), bool)
    for mask, (top, left) in zip(patch, rng.integers(0, 12, (number, 2)), strict=True):
        mask[top : top + 4, left : left + 4] = True
    images[..., 0] += 180 * patch * y[:, None, None]
    return images.astype(np.uint8), y, patch


def test_a_trained_model_looks_at_what_distinguishes_the_classes():
    layers = {"conv": 8}, {"max_pool": 2}, {"conv": 8}, "global_average_pool"
    model = model_of(*layers, shape=(16, 16, 1))
    model.compile("adam", "sparse_categorical_crossentropy")
    model.optimizer.learning_rate = 0.03
    images, y, _ = patches(0)
    model.fit(images, y, epochs=12, batch_size=32, verbose=0)
    images, y, patch = patches(1, 40)
    assert (model.predict(images, verbose=0).argmax(axis=1) == y).all()
    with_patch = y == 1
    heat = maps_of(model, images[with_patch], y[with_patch]).repeat(2, axis=1).repeat(2, axis=2)
    for one, mask in zip(heat, patch[with_patch], strict=True):
        assert one[mask].mean() > 4 * one[~mask].mean()


def test_a_trained_model_looks_more_to_the_side_that_is_bright(made):
    trained, _ = made
    model = load_checked(trained.model, trained.run.model_sha256)
    labels = np.repeat([2, 3], 8)  # left, right
    images = images_of(labels, 7)
    assert (model.predict(images, verbose=0).argmax(axis=1) == labels).all()
    shares = [share_on_the_left(heat) for heat in maps_of(model, images, labels)]
    assert min(shares[:8]) > 0.5 > max(shares[8:])


@pytest.mark.parametrize(
    ("layers", "name"),
    [
        ([{"conv": 4}, {"max_pool": 2}, {"conv": 4}, "batch_norm", "flatten"], "conv_3"),
        (
            [{"conv": 4}, {"max_pool": 2}, "batch_norm", {"activation": "relu"}, "flatten"],
            "activation_4",
        ),
        ([{"conv_block": 4}, {"conv_block": 4, "max_pool": 2}, "flatten"], "activation_2"),
        ([{"conv": 4}, "flatten", {"dense": 8}, {"activation": "relu"}], "conv_1"),
        ([{"activation": "relu"}, "flatten", {"dense": 8}], None),
    ],
)
def test_the_layer_is_what_the_last_convolution_sees(layers, name):
    layer = last_feature_map(model_of(*layers))
    assert (layer and layer.name) == name


def test_of_a_backbone_it_is_what_follows_the_batch_norm_of_the_last_convolution():
    recipe = Recipe.model_validate({"layers": [{"backbone": "efficientnet_lite0"}], "epochs": 1})
    layer = last_feature_map(build(recipe, (64, 64, 3), 2, seed=0))
    assert isinstance(layer, keras.layers.ReLU)
    assert layer.output.shape == (None, 2, 2, 1280)


def test_every_recipe_with_a_convolution_has_maps():
    images = random_images(2, (4, 4, 3))
    for layers in (
        [{"conv": 4, "strides": 2}, {"conv": 4, "strides": 2}, "flatten"],  # 1 x 1
        [{"conv": 4}, "global_average_pool", {"dropout": 0.5}],
    ):
        maps = maps_of(model_of(*layers, shape=(4, 4, 3)), images, [0, 1])
        assert maps.shape[0] == 2
        assert maps.min() >= 0
        assert set(maps.max(axis=(1, 2))) <= {0, 1}


# pictures


def test_every_class_comes_before_one_comes_twice():
    y = np.array([0, 0, 0, 1, 1, 2])
    confidence = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.95], np.float32)
    assert choose(y < 9, y, confidence).tolist() == [5, 0, 3, 1, 4, 2]
    assert choose(y == 0, y, confidence).tolist() == [0, 1, 2]
    assert choose(y > 9, y, confidence).tolist() == []
    assert len(choose(np.ones(99, bool), np.arange(99), np.ones(99, np.float32))) == 9


@pytest.mark.parametrize("shape", [(8, 8, 1), (100, 30, 3)])
def test_an_image_is_seen_where_its_map_is_cold(shape):
    images = random_images(2, shape)
    maps = np.zeros((2, 4, 4), np.float32)
    maps[1, :, :2] = 1
    cold, half = overlay(images, maps)
    larger = len(cold) // shape[0]
    assert min(cold.shape[:2]) >= 64
    expected = np.broadcast_to(images[0], (*shape[:2], 3))
    np.testing.assert_array_equal(cold[::larger, ::larger], expected)
    hot, left = half[:, 0].astype(int), images[1][:, 0].repeat(larger, axis=0).astype(int)
    assert (hot[:, 0] - left[:, 0]).mean() > (hot[:, 2] - left[:, -1]).mean() + 50  # redder


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("right", ["all", "none", "some"])
def test_the_picture_has_a_row_for_the_wrong_and_one_for_the_right(tmp_path, channels, right):
    model = model_of({"conv": 2}, "flatten", shape=(8, 8, channels))
    images = random_images(12, (8, 8, channels))
    probabilities = model.predict(images, verbose=0)
    predicted = probabilities.argmax(axis=1)
    y = {
        "all": predicted,
        "none": 1 - predicted,
        "some": np.where(np.arange(12) < 2, 1 - predicted, predicted),
    }[right]
    predictions = Predictions(("a $", "b"), y, probabilities)
    for name in ("a.png", "b.png"):
        assert draw_gradcam(tmp_path / name, model, images, predictions)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    picture = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    assert picture.shape[:2] == ((350 if right == "some" else 175), 1215)
    # The right end of the first row is empty where two images are wrong.
    assert (picture[:175, 900:].min() == 255) == (right == "some")


def test_the_evaluation_has_it_where_there_is_a_convolution(made):
    trained, evaluation = made
    assert (evaluation.path / "plots" / "gradcam.png").exists()
    logged = connect().list_artifacts(trained.run.run_id, "evaluation/plots")
    assert "evaluation/plots/gradcam.png" in {file.path for file in logged}


def test_a_dense_model_leaves_no_picture_of_another_model(tmp_path):
    (tmp_path / "gradcam.png").write_bytes(b"old")
    model = model_of("flatten")
    predictions = Predictions(("a", "b"), np.zeros(1, np.int64), np.array([[1, 0]], np.float32))
    assert not draw_gradcam(tmp_path / "gradcam.png", model, random_images(1), predictions)
    assert not (tmp_path / "gradcam.png").exists()


def test_a_model_of_views_is_looked_into(tmp_path):
    recipe = {"layers": [{"conv": 4}, "flatten"], "epochs": 1, "test_time_augmentation": "flip"}
    model = build(Recipe.model_validate(recipe), (8, 8, 1), 2, 0)
    probabilities = np.array([[1, 0], [1, 0]], np.float32)
    predictions = Predictions(("a", "b"), np.array([0, 1]), probabilities)
    assert draw_gradcam(tmp_path / "gradcam.png", model, random_images(2), predictions)
    assert (tmp_path / "gradcam.png").exists()
