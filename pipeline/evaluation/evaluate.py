"""evaluate: a model and the untouched test split -> metrics, figures, predictions, LiteRT file."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.artifacts.datasets import Images, Splits
from pipeline.artifacts.files import atomic, write_array, write_json
from pipeline.artifacts.models import Evaluation, TrainedModel
from pipeline.evaluation import figures
from pipeline.evaluation.export import export
from pipeline.evaluation.gradcam import draw_gradcam
from pipeline.evaluation.intervals import classes, flat, intervals, robustness
from pipeline.evaluation.litert import LiteRTRecord, in_each_thread
from pipeline.evaluation.measures import (
    calibration_error,
    confusion,
    most_confidently_wrong,
    most_confused,
    reliability,
)
from pipeline.evaluation.metric import FileMetric, ModelFiles, TrainingMetric
from pipeline.evaluation.metrics import METRICS, scores
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.robustness.corrupted import Predict, corrupted
from pipeline.evaluation.robustness.reports import save_corrupted, save_slices
from pipeline.evaluation.robustness.slices import members, slices
from pipeline.evaluation.scoring import Scorer, load_checked
from pipeline.tracking import evaluations
from pipeline.tracking.recorded import run_of


def evaluate(trained: TrainedModel, splits: Splits, output: Path) -> Evaluation:
    """Measure a model, and write it as a LiteRT file that makes the same predictions.

    Args:
        trained: the model and its run; `model.tflite` and `portable.json` are added to it.
        splits: only `test` is read.
        output: `reports/<dataset>/evaluation/<model>/`.

    Raises:
        ArtifactError: the model is not the one that was trained, or its LiteRT file differs.
        TrackingError: the store cannot be reached.
    """
    run_info = trained.run
    run = run_of(trained, splits)
    model = load_checked(trained.model, run_info.model_sha256)
    scorer = Scorer(model)
    probabilities = scorer.probabilities(splits.x("test"))
    predictions = Predictions(splits.info.class_names, splits.y("test"), probabilities)
    litert = export(model, trained, splits.x("test"), probabilities, scorer.forward)
    record = LiteRTRecord.load(trained.litert_record)
    files = ModelFiles(
        keras=scorer.latency(),
        keras_bytes=trained.model.stat().st_size,
        litert=litert.latency(),
        litert_bytes=trained.litert.stat().st_size,
        difference=record.difference,
    )
    counts = confusion(predictions)
    _save_tables(predictions, counts, output)
    _save_figures(predictions, splits.x("test"), counts, output / "plots")
    draw_gradcam(output / "plots" / "gradcam.png", model, splits.x("test"), predictions)
    evaluation = Evaluation(output)
    content = {
        **scores(predictions),
        **flat(intervals(predictions)),
        **_robustness(in_each_thread(trained.litert.read_bytes()), splits, predictions, evaluation),
        **{m.name: m.measure(files) for m in METRICS if isinstance(m, FileMetric)},
        # Repeated here, so that one file has all metrics.
        **{m.name: m.read(run_info) for m in METRICS if isinstance(m, TrainingMetric)},
        "run_id": run_info.run_id,
        "portable_sha256": record.sha256,
    }
    write_json(output / "metrics.json", content)
    evaluations.log(run, evaluation, trained.litert_record)
    return evaluation


def _robustness(
    predict: Predict, splits: Splits, predictions: Predictions, evaluation: Evaluation
) -> dict[str, float]:
    """Measure the model on slices of the test split, and on images of it that are corrupted."""
    by_slice = slices(predictions.right, members(splits))
    under = corrupted(predict, splits.x("test"), predictions)
    save_slices(by_slice, float(predictions.right.mean()), evaluation)
    save_corrupted(under, evaluation)
    return robustness(by_slice, under)


def _save_tables(predictions: Predictions, counts: NDArray[np.int64], output: Path) -> None:
    """Write the predictions, and the confusion matrix for DVC and for people."""
    names = predictions.class_names
    write_array(output / "predictions" / "probabilities.npy", predictions.probabilities)
    # A file of its own: `dvc metrics diff` would show a line for each number of each class.
    write_json(output / "predictions" / "classes.json", classes(predictions))
    # One row per image, as the confusion template of `dvc plots` expects.
    pairs = pd.DataFrame(
        {
            "actual": [names[label] for label in predictions.y],
            "predicted": [names[label] for label in predictions.predicted],
        }
    )
    confused = pd.DataFrame([asdict(row) for row in most_confused(counts, names)])
    with atomic(output / "confusion.csv") as part:
        pairs.to_csv(part, index=False)
    with atomic(output / "predictions" / "most_confused.csv") as part:
        confused.to_csv(part, index=False)
    with atomic(output / "predictions" / "confusion_counts.csv") as part:
        pd.DataFrame(counts, index=names, columns=names).to_csv(part)


def _save_figures(
    predictions: Predictions, images: Images, counts: NDArray[np.int64], folder: Path
) -> None:
    names = predictions.class_names
    for name, normalised in (("confusion", False), ("confusion_normalised", True)):
        figures.draw_confusion(folder / f"{name}.png", counts, names, normalised=normalised)
    figures.draw_reliability(
        folder / "reliability.png", reliability(predictions), calibration_error(predictions)
    )
    wrong = most_confidently_wrong(predictions)
    captions = [figures.caption(predictions, image) for image in wrong]
    empty = "every test image is classified correctly"
    figures.draw_images(folder / "misclassified.png", images[wrong], captions, empty=empty)
