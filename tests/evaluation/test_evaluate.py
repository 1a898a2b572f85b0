"""What `evaluate` writes, and what its run shows."""

import pandas as pd
import pytest

from pipeline.artifacts.files import sha256
from pipeline.errors import ArtifactError
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.export import TOLERANCE
from pipeline.evaluation.metric import TrainingMetric
from pipeline.evaluation.metrics import BY_NAME
from pipeline.evaluation.robustness.corruptions import CORRUPTIONS
from pipeline.tracking.store import connect
from tests.evaluated import another_store, copy, made

__all__ = ["copy", "made"]


def test_the_metrics_are_those_of_the_stored_predictions(made):
    evaluation = made.models["dense"][1]
    metrics, y = evaluation.metrics, made.splits.y("test")
    right = evaluation.probabilities.argmax(axis=1) == y
    assert metrics["accuracy"] == right.mean() < 1  # three labels are wrong
    assert metrics["accuracy_low"] < metrics["accuracy"] < metrics["accuracy_high"]
    assert metrics["val_accuracy"] == made.models["dense"][0].run.val_accuracy
    assert metrics["run_id"] == made.models["dense"][0].run.run_id
    assert 0 < metrics["latency_p50_ms"] <= metrics["latency_p95_ms"]
    assert metrics["images_per_second"] > 0
    assert metrics["size_bytes"] == made.models["dense"][0].model.stat().st_size


def test_every_number_that_is_written_is_a_metric_or_its_interval_and_none_is_missing(made):
    metrics = made.models["dense"][1].metrics
    numbers = {name for name, value in metrics.items() if isinstance(value, int | float)}
    bounds = {f"{name}_{end}" for name in BY_NAME for end in ("low", "high")}
    # That of fewer than 4 classes, and that of more test images.
    left_out = {"top_2_accuracy", "slice_accuracy_lowest"}
    assert numbers - bounds == set(BY_NAME) - left_out
    logged = connect().get_run(made.models["dense"][0].run.run_id).data.metrics
    for name, metric in BY_NAME.items():
        assert (f"test_{name}" in logged) == (
            name in numbers and not isinstance(metric, TrainingMetric)
        )


def test_the_litert_file_is_measured_beside_the_keras_model(made):
    trained, evaluation = made.models["dense"]
    metrics = evaluation.metrics
    assert metrics["portable_sha256"] == sha256(trained.litert)
    assert metrics["portable_size_bytes"] == trained.litert.stat().st_size
    assert 0 <= metrics["portable_difference"] <= TOLERANCE
    assert 0 < metrics["portable_latency_p50_ms"] <= metrics["portable_latency_p95_ms"]
    listed = connect().list_artifacts(trained.run.run_id, "evaluation")
    assert "evaluation/portable.json" in {file.path for file in listed}


def test_the_files_that_the_graph_names_are_there(made):
    folder = made.models["dense"][1].path
    rows = pd.read_csv(folder / "confusion.csv")
    assert list(rows) == ["actual", "predicted"]
    assert len(rows) == 32
    assert len(list((folder / "plots").glob("*.png"))) == 6
    assert len(pd.read_csv(folder / "predictions" / "corruptions.csv")) == 6 * len(CORRUPTIONS)
    assert (folder / "predictions" / "most_confused.csv").exists()


def test_the_run_shows_the_evaluation(made):
    client = connect()
    run_id = made.models["dense"][0].run.run_id
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test_accuracy"] == made.models["dense"][1].metrics["accuracy"]
    listed = {f.path for f in client.list_artifacts(run_id, "evaluation/plots")}
    assert "evaluation/plots/misclassified.png" in listed


def test_a_model_whose_bytes_changed_is_not_evaluated(copy):
    with (copy.folder / "dense" / "model.keras").open("ab") as file:
        file.write(b"x")
    before = (copy.folder / "evaluation/dense/metrics.json").read_bytes()
    with pytest.raises(ArtifactError, match="sha256"):
        evaluate(copy.models["dense"][0], copy.splits, copy.folder / "evaluation/dense")
    assert (copy.folder / "evaluation/dense/metrics.json").read_bytes() == before


def test_evaluating_in_another_store_records_the_run_there(copy, monkeypatch):
    store = another_store(copy, monkeypatch)
    evaluate(copy.models["dense"][0], copy.splits, copy.folder / "evaluation/dense")
    (run,) = store.search_runs([store.get_experiment_by_name("tiny").experiment_id])
    assert run.data.tags["original_run_id"] == copy.models["dense"][0].run.run_id
    assert run.data.metrics["test_accuracy"] == copy.models["dense"][1].metrics["accuracy"]
