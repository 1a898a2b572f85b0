import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from pipeline.errors import TrainingError
from pipeline.models.build import build
from pipeline.models.recipes import Recipe
from pipeline.training.engine import Data
from pipeline.training.history import Epoch
from pipeline.training.logistic import STRENGTHS, WORSE_IN_A_ROW, fit_softmax


def recipe_of(optimizer="lbfgs", **changes):
    content = {"layers": ["flatten"], "optimizer": optimizer, "epochs": 300}
    return Recipe.model_validate(content | changes)


def data_of(classes):
    x, y = load_digits(return_X_y=True)
    x, y = x[y < classes], y[y < classes]
    x = (x.reshape(-1, 8, 8, 1) * 255 / 16).round().astype(np.uint8)
    x_train, x_val, y_train, y_val = train_test_split(x, y, stratify=y, random_state=0)
    return Data(x_train, y_train, x_val, y_val, tuple("0123456789"[:classes]))


def trained(recipe, data, **more):
    model = build(recipe, (8, 8, 1), len(data.class_names), 0)
    return model, fit_softmax(model, recipe, data, **more)


@pytest.mark.parametrize("classes", [2, 10])
def test_the_model_answers_as_logistic_regression_on_standardised_features(classes):
    data, l2 = data_of(classes), 0.03
    model, history = trained(recipe_of({"name": "lbfgs", "l2": l2}), data)
    flat = [x.reshape(len(x), -1) / 255 for x in (data.x_train, data.x_val)]
    scaler = StandardScaler().fit(flat[0])
    own = LogisticRegression(C=1 / (l2 * len(flat[0])), max_iter=1000)
    own.fit(scaler.transform(flat[0]), data.y_train)
    expected = own.predict_proba(scaler.transform(flat[1]))
    answers = model.predict(data.x_val, verbose=0)
    np.testing.assert_allclose(answers, expected, atol=0.01)
    assert history.kept.val_accuracy == (answers.argmax(1) == data.y_val).mean()
    losses = -np.log(answers[np.arange(len(answers)), data.y_val])
    assert history.kept.val_loss == pytest.approx(losses.mean(), rel=1e-3)
    assert history.strengths == (l2,)


def test_the_strength_is_the_one_with_the_lowest_loss_on_the_validation_split():
    seen: list[Epoch] = []
    _, history = trained(recipe_of(), data_of(10), on_epoch=seen.append)
    assert history.strengths == STRENGTHS[: len(seen)]
    assert list(history.epochs) == seen
    assert [row.epoch for row in seen] == list(range(1, len(seen) + 1))
    assert history.kept.val_loss == min(row.val_loss for row in seen)
    assert seen[0].loss > seen[-1].loss  # the strongest first
    assert len(seen) == min(len(STRENGTHS), history.kept.epoch + WORSE_IN_A_ROW)
    assert history.kept != seen[0]


def test_a_class_of_weight_two_counts_as_much_as_its_images_twice():
    data, recipe = data_of(3), recipe_of({"name": "lbfgs", "l2": 0.01})
    ones = data.y_train == 1
    twice = Data(
        np.concatenate([data.x_train, data.x_train[ones]]),
        np.concatenate([data.y_train, data.y_train[ones]]),
        *(data.x_val, data.y_val, data.class_names),
    )
    weighed = recipe_of({"name": "lbfgs", "l2": 0.01}, class_weights={"1": 2})
    # Standardised nearly alike: weights are of the loss alone.
    answers = [
        model.predict(data.x_val, verbose=0)
        for model, _ in (trained(weighed, data), trained(recipe, twice))
    ]
    np.testing.assert_allclose(answers[0], answers[1], atol=0.06)
    plain = trained(recipe, data)[0].predict(data.x_val, verbose=0)
    assert np.abs(plain - answers[0]).mean() > 2 * np.abs(answers[1] - answers[0]).mean()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": ["flatten", {"dense": 8}]}, "dense is trained or random"),
        ({"layers": [{"conv": 8}, "flatten"]}, "conv is trained or random"),
        ({"layers": ["flatten", {"dropout": 0.1}]}, "dropout is trained or random"),
        ({"augmentation": {"crop": 1}}, "augmentation has no meaning with optimizer lbfgs"),
        ({"then": [{"epochs": 1}]}, "then has no meaning"),
        ({"optimizer": {"name": "lbfgs", "learning_rate": 0.1}}, "this is lbfgs"),
        ({"optimizer": {"name": "lbfgs", "weight_decay": 0.1}}, "this is lbfgs"),
        ({"optimizer": {"name": "adam", "l2": 0.1}}, "l2 belongs to lbfgs"),
        ({"optimizer": {"name": "lbfgs", "l2": 0}}, "greater than 0"),
    ],
)
def test_what_logistic_regression_cannot_do_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        recipe_of(**changes)


def test_data_that_do_not_fit_are_refused():
    data = data_of(3)
    wrong = Data(data.x_train[:0], data.y_train[:0], data.x_val, data.y_val, data.class_names)
    with pytest.raises(TrainingError, match="train split has no images"):
        trained(recipe_of(), wrong)
