"""Images that a model was not made for: most of them are not answered."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.artifacts.models import TrainedModel
from pipeline.evaluation.export import export
from pipeline.evaluation.litert import LiteRTModel
from pipeline.evaluation.scoring import Scorer
from pipeline.guarantee.calibrate import threshold, upper_quantile
from pipeline.guarantee.features import with_features
from pipeline.guarantee.guarantee import Guarantee
from pipeline.guarantee.selective import Limits
from pipeline.guarantee.training_features import TrainingFeatures
from pipeline.models.build import build
from pipeline.workspace import Workspace
from tests.evaluated import made
from tests.tiny import tiny_plan

__all__ = ["made"]


def answering(content, train, test, error):
    """Calibrate a LiteRT file, and return what tells which images it answers."""
    model = LiteRTModel(with_features(content))
    known = TrainingFeatures.of(model.with_features(train)[1])
    probabilities, features = model.with_features(test[0])
    best, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == test[1]
    distances = known.distances(features)
    promise = Guarantee(
        error=error,
        confidence=0.95,
        above=threshold(best, right, error, 0.95),
        turned=upper_quantile(distances.turned, 0.005),
        far=upper_quantile(distances.far, 0.005),
        images=len(best),
        answered=0,
        wrong=0,
        unlike=0,
        training_images=len(train),
    )
    limits = Limits(promise, known)
    return lambda images: limits.reasons(*model.with_features(images))


def test_digits_models_answer_little_that_is_no_digit(reproduced):
    workspace, shares = Workspace("digits", reproduced), []
    train, x = (np.asarray(workspace.splits.x(name)) for name in ("train", "test"))
    y = np.array(workspace.splits.y("test"))
    noise = np.random.default_rng(0).integers(0, 256, x.shape).astype(np.uint8)
    for name in ("dense", "cnn"):
        content = workspace.trained(name).litert.read_bytes()
        reasons = answering(content, train[:1000], (x, y), 0.02)
        others = (x, noise, np.rot90(x, axes=(1, 2)), 255 - x)
        shares.append([(reasons(images) == "").mean() for images in others])
    digits, noisy, turned, inverted = zip(*shares, strict=True)
    assert min(digits) > 0.8
    assert max(noisy) < 0.6
    assert max(turned) < 0.6, "without the features it is sure of them all"
    assert max(inverted) < 0.2


def mirrored(name, split):
    folder = Path(os.environ["DATASET_MIRROR"], name)
    images = gzip.decompress((folder / f"{split}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{split}-labels-idx1-ubyte.gz").read_bytes())
    x = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28, 1)
    return x, np.frombuffer(labels, np.uint8, offset=8).astype(np.int64)


@pytest.mark.long
@pytest.mark.skipif("DATASET_MIRROR" not in os.environ, reason="needs DATASET_MIRROR")
@pytest.mark.parametrize(("own", "other"), [("mnist", "fashion_mnist"), ("fashion_mnist", "mnist")])
def test_a_model_of_one_dataset_answers_little_of_another(made, tmp_path, own, other):
    (x, y), (tested, labels) = mirrored(own, "train"), mirrored(own, "t10k")
    plan = tiny_plan(layers=["flatten", {"dense": 256}])
    model = build(plan.recipe, (28, 28, 1), 10, 0)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, batch_size=128, epochs=4, verbose=0)
    (tmp_path / "run.json").write_bytes((made.models["dense"][0].path / "run.json").read_bytes())
    trained = TrainedModel(tmp_path)
    export(model, trained, tested[:500], Scorer(model).probabilities(tested[:500]))
    content, half = trained.litert.read_bytes(), len(tested) // 2
    error = 0.02
    reasons = answering(content, x[:1000], (tested[:half], labels[:half]), error)
    asked = LiteRTModel(content).probabilities(tested[half:]).argmax(axis=1)
    answered = reasons(tested[half:]) == ""
    assert (answered & (asked != labels[half:])).mean() < error
    assert answered.mean() > 0.5
    strange = reasons(mirrored(other, "t10k")[0])
    assert (strange == "").mean() < answered.mean() / 2
