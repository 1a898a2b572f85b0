import numpy as np
import pytest
from sklearn.metrics import top_k_accuracy_score

from pipeline.evaluation.measures import (
    by_class,
    calibration_error,
    confusion,
    in_top,
    most_confidently_wrong,
    most_confused,
    reliability,
)
from pipeline.evaluation.metrics import scores
from pipeline.evaluation.predictions import Predictions

NAMES = ("ant", "bee", "cat", "dog")
Y = np.array([0, 0, 1, 1, 2, 3])
PROBABILITIES = np.array(
    [
        [0.7, 0.1, 0.1, 0.1],
        [0.2, 0.6, 0.1, 0.1],  # an ant that is taken for a bee
        [0.1, 0.8, 0.05, 0.05],
        [0.0, 1.0, 0.0, 0.0],
        [0.3, 0.05, 0.25, 0.4],  # a cat that is taken for a dog
        [0.1, 0.1, 0.1, 0.7],
    ],
    dtype=np.float32,
)
ANIMALS = Predictions(NAMES, Y, PROBABILITIES)
TWO = ("ant", "bee")


def score(name, predictions=ANIMALS):
    return scores(predictions)[name]


def test_the_metrics_by_hand():
    assert score("accuracy") == pytest.approx(4 / 6)
    assert score("images") == 6
    truth = [0.7, 0.2, 0.8, 1.0, 0.25, 0.7]
    assert score("loss") == pytest.approx(-np.log(truth).mean(), abs=1e-6)
    classes = by_class(ANIMALS)
    assert classes["bee"] == pytest.approx(
        {"precision": 2 / 3, "recall": 1.0, "f1": 0.8, "support": 2}
    )
    assert classes["cat"] == {"precision": 0, "recall": 0, "f1": 0, "support": 1}
    for name in ("precision", "recall", "f1"):
        assert score(name) == pytest.approx(np.mean([row[name] for row in classes.values()]))
    assert score("recall") == pytest.approx((0.5 + 1 + 0 + 1) / 4)
    assert score("recall_lowest") == 0
    assert score("top_3_accuracy") == 1


def test_a_class_without_images_has_no_recall_and_is_not_the_worst():
    some = Predictions((*NAMES, "eel"), Y[:4], np.pad(PROBABILITIES[:4], [(0, 0), (0, 1)]))
    assert some.recalls() == {"ant": 0.5, "bee": 1}
    assert score("recall_lowest", some) == 0.5
    assert score("recall", some) == pytest.approx(1.5 / 5)


def test_top_k_grows_to_one():
    shares = [in_top(ANIMALS, k).mean() for k in (1, 2, 3, 4)]
    assert shares == pytest.approx([4 / 6, 5 / 6, 1, 1])


def test_without_ties_top_k_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    y, probabilities = rng.integers(0, 10, 500), rng.dirichlet(np.ones(10), 500).astype(np.float32)
    mine = in_top(Predictions(tuple("abcdefghij"), y, probabilities), 3)
    assert mine.mean() == top_k_accuracy_score(y, probabilities, k=3, labels=range(10))


def test_of_a_tie_the_first_label_is_predicted_and_first_in_the_top():
    tied = Predictions(TWO, np.array([0, 1]), np.full((2, 2), 0.5, np.float32))
    assert in_top(tied, 1).tolist() == tied.right.tolist() == [True, False]


def test_a_model_that_is_as_sure_as_it_is_right_has_no_calibration_error():
    sure = np.tile(np.array([0.75, 0.25], np.float32), (400, 1))
    for counts, error in (([300, 100], 0), ([100, 300], 0.5)):
        predictions = Predictions(TWO, np.repeat([0, 1], counts), sure)
        assert calibration_error(predictions) == pytest.approx(error, abs=1e-6)


def test_a_confidence_of_one_is_in_the_last_bin():
    bins = reliability(Predictions(TWO, np.array([0, 1]), np.array([[1, 0], [1, 0]], np.float32)))
    assert bins.confidence.tolist() == [1]
    assert bins.accuracy.tolist() == [0.5]
    assert bins.count.tolist() == [2]


def test_confusion_has_truth_in_rows_and_absent_classes_too():
    counts = confusion(Predictions((*NAMES, "eel"), Y, PROBABILITIES))
    assert counts.shape == (5, 5)
    assert counts[0, 1] == 1
    assert counts[2, 3] == 1
    assert counts.sum() == 6


def test_most_confused_pairs_come_with_their_share():
    pairs = most_confused(np.array([[8, 2, 0], [0, 5, 5], [0, 0, 9]]), NAMES[:3])
    assert [(p.actual, p.predicted, p.count, p.share) for p in pairs] == [
        ("bee", "cat", 5, 0.5),
        ("ant", "bee", 2, 0.2),
    ]
    assert most_confused(np.eye(3, dtype=int), NAMES[:3]) == []


def test_the_most_confident_mistake_comes_first():
    assert most_confidently_wrong(ANIMALS).tolist() == [1, 4]
    assert most_confidently_wrong(ANIMALS, limit=1).tolist() == [1]
    right = Predictions(NAMES, ANIMALS.predicted, PROBABILITIES)
    assert most_confidently_wrong(right).tolist() == []
