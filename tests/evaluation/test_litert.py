"""Models as LiteRT files: they answer as Keras does, are checked, and need no TensorFlow."""

import json
import os
import resource
import subprocess
import sys
from typing import get_args

import keras
import numpy as np
import pytest
from PIL import Image

from pipeline.artifacts.files import sha256
from pipeline.artifacts.models import RunInfo, TrainedModel
from pipeline.errors import ArtifactError
from pipeline.evaluation.export import TOLERANCE, export
from pipeline.evaluation.litert import LiteRTModel, LiteRTRecord, load_litert
from pipeline.evaluation.scoring import Scorer
from pipeline.models import build as models
from pipeline.models.backbones import build as backbones
from pipeline.models.layer import Activation
from pipeline.models.recipes import Recipe
from pipeline.params.params import load_params
from pipeline.serving.predict import predict
from tests.conftest import ROOT
from tests.layers import all_in_a_row
from tests.models.test_backbones import ONE_OF_ALL
from tests.models.test_models import build, images

SHAPE = (8, 8, 1)
VIEWS = get_args(Recipe.model_fields["test_time_augmentation"].annotation)
RECIPES = load_params(ROOT / "params.yaml").recipes


def save(model, folder):
    """Write a model and its run as training does."""
    trained = TrainedModel(folder / "model")
    trained.path.mkdir(parents=True)
    model.save(trained.model)
    RunInfo(
        run_id="0" * 32,
        experiment="tiny",
        dataset="tiny",
        model="dense",
        class_names=tuple("abcdefghij"[: model.output_shape[-1]]),
        image_shape=model.input_shape[1:],
        data_md5="0" * 32,
        model_sha256=sha256(trained.model),
        seed=0,
        device="cpu",
        parameters=model.count_params(),
        epochs=1,
        training_seconds=1.0,
        val_accuracy=0.5,
        val_loss=1.0,
        git_commit=None,
        git_dirty=None,
    ).save(trained.path / "run.json")
    return trained


def exported(model, folder, count=40):
    """Return the LiteRT model, images, and what Keras says of them."""
    x = images(count, *model.input_shape[1:])
    expected = Scorer(model).probabilities(x)
    return export(model, save(model, folder), x, expected), x, expected


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Return a small model beside its LiteRT file."""
    folder = tmp_path_factory.mktemp("small")
    exported(build("flatten", {"dense": 8}), folder)
    return TrainedModel(folder / "model")


@pytest.fixture
def trained(small, tmp_path):
    """Return a copy that a test may change."""
    for name in ("model.keras", "model.tflite", "portable.json", "run.json"):
        (tmp_path / name).write_bytes((small.path / name).read_bytes())
    return TrainedModel(tmp_path)


# export


def test_every_layer_and_activation_answers_as_keras_does(tmp_path):
    convolutions = ({"conv": 4, "activation": name} for name in get_args(Activation))
    model = build(*convolutions, *all_in_a_row())
    litert, x, expected = exported(model, tmp_path)
    assert np.abs(litert.probabilities(x) - expected).max() <= TOLERANCE
    record = LiteRTRecord.load(tmp_path / "model/portable.json")
    assert record.images == len(x)
    assert record.difference <= TOLERANCE
    assert record.sha256 == sha256(tmp_path / "model/model.tflite")


@pytest.mark.parametrize(
    "views", get_args(Recipe.model_fields["test_time_augmentation"].annotation)
)
def test_a_model_that_looks_several_times(views, tmp_path):
    layers = {"layers": [{"conv": 4}, "flatten"], "epochs": 1, "test_time_augmentation": views}
    model = models.build(Recipe.model_validate(layers), (8, 8, 3), 3, 0)
    litert, x, expected = exported(model, tmp_path)
    assert np.abs(litert.probabilities(x) - expected).max() <= TOLERANCE


@pytest.mark.parametrize("kind", ONE_OF_ALL)
def test_every_backbone_answers_as_keras_does(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(backbones, "_load", lambda *_: None)
    layers = [{"backbone": kind.name, "alpha": kind.alpha}, {"dense": 4}]
    recipe = Recipe.model_validate({"layers": layers, "epochs": 1})
    model = models.build(recipe, (64, 64, 1), 3, 0)
    litert, x, expected = exported(model, tmp_path, count=4)
    assert np.abs(litert.probabilities(x) - expected).max() <= TOLERANCE


@pytest.mark.long
@pytest.mark.parametrize(
    ("dataset", "model"), [(name, model) for name, row in RECIPES.items() for model in row]
)
def test_every_recipe_answers_as_keras_does(dataset, model, tmp_path):
    shape = {"mnist": (28, 28, 1), "fashion_mnist": (28, 28, 1), "digits": (8, 8, 1)}
    built = models.build(RECIPES[dataset][model], shape.get(dataset, (32, 32, 3)), 10, 0)
    litert, x, expected = exported(built, tmp_path)
    assert np.abs(litert.probabilities(x) - expected).max() <= TOLERANCE


def test_a_file_that_answers_otherwise_is_refused_and_not_kept(tmp_path):
    model = build("flatten", {"dense": 8})
    trained, x = save(model, tmp_path), images(5, *SHAPE)
    wrong = Scorer(model).probabilities(x)
    wrong[2] = np.roll(wrong[2], 1)
    with pytest.raises(ArtifactError, match=r"of 5 test images differ by up to 0\.\d"):
        export(model, trained, x, wrong)
    assert not trained.litert.exists()
    assert not trained.litert_record.exists()
    with pytest.raises(ArtifactError, match="differ by up to nan"):
        export(model, trained, x, np.full_like(wrong, np.nan))


def test_an_operation_that_litert_lacks_is_named(tmp_path):
    pixels = keras.Input(SHAPE, dtype="uint8")
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(pixels))
    odd = keras.Model(pixels, keras.layers.Dense(3, activation="softmax")(keras.ops.erfinv(x)))
    with pytest.raises(ArtifactError, match=r"cannot be exported to LiteRT: .*Erfinv"):
        export(odd, save(odd, tmp_path), images(2, *SHAPE), np.zeros((2, 3), np.float32))


# what is loaded


def test_batches_of_any_size_say_the_same_as_one_by_one(small):
    litert = load_litert(small)
    x = images(2 * litert.batch_size + 7, *SHAPE)
    single = np.concatenate([litert.probabilities(image[None]) for image in x])
    assert np.abs(litert.probabilities(x) - single).max() < 1e-6
    assert litert.probabilities(x[:, ::-1]).shape == (len(x), 3)  # not contiguous


def test_large_images_are_asked_about_few_at_a_time(tmp_path):
    model = build({"conv": 2, "strides": 8}, "global_average_pool", shape=(512, 512, 3))
    litert, _, _ = exported(model, tmp_path, count=3)
    assert litert.batch_size == 1


def test_latency_is_measured(small):
    measured = load_litert(small).latency()
    assert 0 < measured.p50_ms <= measured.p95_ms
    assert measured.images_per_second > 0


@pytest.mark.parametrize("name", ["model.tflite", "portable.json"])
def test_a_model_without_it_says_what_makes_it(trained, name):
    (trained.path / name).unlink()
    with pytest.raises(ArtifactError, match=r"dataset: tiny .* dvc repro evaluate@dense"):
        load_litert(trained)


def test_other_bytes_than_those_that_were_checked_are_not_loaded(trained):
    with trained.litert.open("ab") as file:
        file.write(b"x")
    with pytest.raises(ArtifactError, match=r"sha256 .* the file that was checked had"):
        load_litert(trained)


def test_the_file_of_an_earlier_training_is_not_taken_for_this_one(trained):
    run = json.loads((trained.path / "run.json").read_text())
    (trained.path / "run.json").write_text(json.dumps(run | {"model_sha256": "1" * 64}))
    with pytest.raises(ArtifactError, match=r"the trained model has 1{64}; .*evaluate@dense"):
        load_litert(trained)


def test_bytes_that_are_no_model_are_refused(trained):
    trained.litert.write_bytes(b"no model")
    record = LiteRTRecord.load(trained.litert_record)
    record.model_copy(update={"sha256": sha256(trained.litert)}).save(trained.litert_record)
    with pytest.raises(ArtifactError, match=r"cannot load .*model\.tflite"):
        load_litert(trained)
    with pytest.raises(ValueError, match="model"):
        LiteRTModel(b"")


# predict


def test_predicting_needs_no_keras_file_and_no_tensorflow(trained, tmp_path):
    trained.model.unlink()
    Image.new("L", (20, 30), 128).save(tmp_path / "image.png")
    code = (
        "import sys; from pipeline.cli import app; "
        "sys.argv[1:] = ['predict', 'image.png', '--model', '.', '--top', '3', '--json']; "
        "app(standalone_mode=False); "
        "heavy = {'tensorflow', 'keras', 'mlflow', 'pandas', 'sklearn', 'rich'}; "
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (done.returncode, done.stderr) == (0, "")
    (row,) = json.loads(done.stdout)
    (expected,) = predict([tmp_path / "image.png"], str(tmp_path), top=3)
    assert [c["class_name"] for c in row["classes"]] == [name for name, _ in expected.classes]
    # Of the processor: what else runs here does not count.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1
