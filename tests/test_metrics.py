import numpy as np
import pytest

from pipeline.evaluation.metrics import (
    calibration_error,
    confusion,
    most_confidently_wrong,
    most_confused,
    reliability,
    summarize,
    top_k_accuracy,
)

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
PREDICTED = PROBABILITIES.argmax(axis=1)


def test_the_summary_by_hand():
    summary = summarize(Y, PROBABILITIES, NAMES)
    assert summary["accuracy"] == pytest.approx(4 / 6)
    assert summary["images"] == 6
    truth = [0.7, 0.2, 0.8, 1.0, 0.25, 0.7]
    assert summary["loss"] == pytest.approx(-np.log(truth).mean(), abs=1e-6)
    assert summary["classes"]["bee"] == pytest.approx(
        {"precision": 2 / 3, "recall": 1.0, "f1": 0.8, "support": 2}
    )
    assert summary["classes"]["cat"] == {"precision": 0, "recall": 0, "f1": 0, "support": 1}
    assert summary["recall"] == pytest.approx((0.5 + 1 + 0 + 1) / 4)
    assert summary["recall_lowest"] == 0
    assert summary["top_3_accuracy"] == 1
    assert "top_2_accuracy" in summarize(Y[:4], PROBABILITIES[:4, :2] + 0.1, NAMES[:2])


def test_top_k_grows_to_one():
    shares = [top_k_accuracy(Y, PROBABILITIES, k) for k in (1, 2, 3, 4)]
    assert shares == pytest.approx([4 / 6, 5 / 6, 1, 1])


def test_a_model_that_is_as_sure_as_it_is_right_has_no_calibration_error():
    sure = np.tile(np.array([0.75, 0.25], np.float32), (400, 1))
    assert calibration_error(np.repeat([0, 1], [300, 100]), sure) == pytest.approx(0, abs=1e-6)
    assert calibration_error(np.repeat([0, 1], [100, 300]), sure) == pytest.approx(0.5, abs=1e-6)


def test_a_confidence_of_one_is_in_the_last_bin():
    bins = reliability(np.array([0, 1]), np.array([[1, 0], [1, 0]], np.float32))
    assert bins.confidence.tolist() == [1]
    assert bins.accuracy.tolist() == [0.5]
    assert bins.count.tolist() == [2]


def test_confusion_has_truth_in_rows_and_absent_classes_too():
    counts = confusion(Y, PREDICTED, 5)
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
    assert most_confidently_wrong(Y, PROBABILITIES).tolist() == [1, 4]
    assert most_confidently_wrong(Y, PROBABILITIES, limit=1).tolist() == [1]
    assert most_confidently_wrong(PREDICTED, PROBABILITIES).tolist() == []
