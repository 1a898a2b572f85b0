"""evaluate: a model and the untouched test split -> metrics, pictures, predictions, LiteRT file."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.artifacts.datasets import Splits
from pipeline.artifacts.files import atomic, write_array, write_json
from pipeline.artifacts.models import Evaluation, RunInfo, TrainedModel
from pipeline.evaluation import figures, metrics
from pipeline.evaluation.export import export
from pipeline.evaluation.gradcam import draw_gradcam
from pipeline.evaluation.intervals import add_intervals
from pipeline.evaluation.portable import PortableModel, PortableRecord
from pipeline.evaluation.scoring import Scorer, load_checked
from pipeline.tracking import evaluations
from pipeline.tracking.recorded import run_of


def evaluate(trained: TrainedModel, splits: Splits, output: Path) -> Evaluation:
    """Measure one model, and write it as a LiteRT file that gives the same answers.

    Args:
        trained: the model and its run; gets `model.tflite` and `portable.json`.
        splits: only `test` is read.
        output: `reports/<dataset>/evaluation/<model>/`.

    Raises:
        ArtifactError: the model is not the one that was trained, or its LiteRT file differs.
        TrackingError: the store cannot be reached.
    """
    names, run_info, y_test = splits.info.class_names, trained.run, splits.y("test")
    run = run_of(trained, splits)
    model = load_checked(trained.model, run_info.model_sha256)
    scorer = Scorer(model)
    probabilities = scorer.probabilities(splits.x("test"))
    portable = export(model, trained, splits.x("test"), probabilities)
    summary = add_intervals(metrics.summarize(y_test, probabilities, names), y_test, probabilities)
    # A file of its own: `dvc metrics diff` would show a line for each number of each class.
    classes = summary.pop("classes")
    content = {
        **summary,
        **scorer.latency(),
        **_of_portable(portable, trained),
        **_carried(run_info, trained),
    }
    counts = metrics.confusion(y_test, probabilities.argmax(axis=1), len(names))
    _save_tables(probabilities, counts, splits, output)
    write_json(output / "predictions" / "classes.json", classes)
    _save_pictures(probabilities, counts, splits, output / "plots")
    draw_gradcam(
        output / "plots" / "gradcam.png", model, splits.x("test"), y_test, probabilities, names
    )
    write_json(output / "metrics.json", content)
    evaluation = Evaluation(output)
    evaluations.log(run, evaluation, trained.portable_record)
    return evaluation


def _of_portable(portable: PortableModel, trained: TrainedModel) -> dict[str, Any]:
    """Measure the LiteRT file, which `pipeline predict` asks, beside the Keras model."""
    record = PortableRecord.load(trained.portable_record)
    rows = {
        **portable.latency(),
        "size_bytes": trained.portable.stat().st_size,
        "difference": record.difference,
        "sha256": record.sha256,
    }
    return {f"portable_{key}": value for key, value in rows.items()}


def _carried(run_info: RunInfo, trained: TrainedModel) -> dict[str, Any]:
    """What training knows, so that one file answers most questions."""
    return {
        "val_accuracy": run_info.val_accuracy,
        "val_loss": run_info.val_loss,
        "parameters": run_info.parameters,
        "size_bytes": trained.model.stat().st_size,
        "training_seconds": run_info.training_seconds,
        "run_id": run_info.run_id,
    }


def _save_tables(
    probabilities: metrics.Probabilities, counts: NDArray[np.int64], splits: Splits, output: Path
) -> None:
    """Write the predictions, and the confusion matrix in the two forms that are asked for."""
    names = splits.info.class_names
    write_array(output / "predictions" / "probabilities.npy", probabilities)
    # One row per image: what `dvc plots` takes for a confusion matrix.
    pairs = pd.DataFrame(
        {
            "actual": [names[label] for label in splits.y("test")],
            "predicted": [names[label] for label in probabilities.argmax(axis=1)],
        }
    )
    confused = pd.DataFrame([asdict(row) for row in metrics.most_confused(counts, names)])
    with atomic(output / "confusion.csv") as part:
        pairs.to_csv(part, index=False)
    with atomic(output / "predictions" / "most_confused.csv") as part:
        confused.to_csv(part, index=False)
    with atomic(output / "predictions" / "confusion_counts.csv") as part:
        pd.DataFrame(counts, index=names, columns=names).to_csv(part)


def _save_pictures(
    probabilities: metrics.Probabilities, counts: NDArray[np.int64], splits: Splits, folder: Path
) -> None:
    names, y_test, x_test = splits.info.class_names, splits.y("test"), splits.x("test")
    for name, normalised in (("confusion", False), ("confusion_normalised", True)):
        figures.draw_confusion(folder / f"{name}.png", counts, names, normalised=normalised)
    bins = metrics.reliability(y_test, probabilities)
    error = metrics.calibration_error(y_test, probabilities)
    figures.draw_reliability(folder / "reliability.png", bins, error)
    wrong = metrics.most_confidently_wrong(y_test, probabilities)
    said, sure = probabilities[wrong].argmax(axis=1), probabilities[wrong].max(axis=1)
    captions = [
        f"{names[true]}\nnot {names[label]}\n{confidence:.0%}"
        for true, label, confidence in zip(y_test[wrong], said, sure, strict=True)
    ]
    empty = "every test image is classified correctly"
    figures.draw_images(folder / "misclassified.png", x_test[wrong], captions, empty=empty)
