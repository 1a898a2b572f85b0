"""The guarantee of a version in MLflow: a picture and the model card on its run."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from pipeline.artifacts.figures import new_figure, save_figure
from pipeline.evaluation.predictions import Predictions
from pipeline.guarantee.guarantee import Guarantee
from pipeline.registry import descriptions
from pipeline.registry.passport import Passport
from pipeline.registry.versions import Registered
from pipeline.reports import card
from pipeline.tracking.runs import existing_run


def publish(version: Registered, passport: Passport, predictions: Predictions) -> None:
    """Show a guarantee: as the version's description, and as `guarantee/<version>/` on its run.

    Args:
        version: a version with a guarantee.
        passport: its passport.
        predictions: what it says of the calibration images.

    Raises:
        TrackingError: the store cannot be reached, or lacks the run.
    """
    promise = passport.guarantee
    if promise is None:
        raise ValueError(f"{version.spec} has no guarantee")
    run = existing_run(version.run_id, f"dvc repro --force train@{passport.run.model}")
    with TemporaryDirectory() as name:
        folder = Path(name)
        evaluation = descriptions.fetch_evaluation(version, folder)
        plots = evaluation / "plots" if evaluation else folder / "plots"
        draw_risk_coverage(plots / card.RISK_COVERAGE, predictions, promise)
        made = card.render(passport, version.version, card.most_confused(plots), plots)
        out = folder / "made"
        out.mkdir()
        (out / "card.md").write_text(made.markdown)
        (out / "card.html").write_text(made.html)
        (out / "guarantee.json").write_text(json.dumps(promise.model_dump(), indent=2))
        (plots / card.RISK_COVERAGE).rename(out / card.RISK_COVERAGE)
        run.log_artifact(out, descriptions.of_guarantee(version))
    card.describe(version, passport)


def draw_risk_coverage(path: Path, predictions: Predictions, promise: Guarantee) -> None:
    """Draw the share of images that are answered wrongly over the share that is answered.

    From left to right the threshold falls. Images unlike the training images are left aside: each
    of them that is not answered makes both shares smaller.
    """
    order = np.argsort(-predictions.confidence, kind="stable")
    count = len(order)
    answered = np.arange(count + 1) / count
    wrong = np.concatenate([[0], np.cumsum(~predictions.right[order])]) / count
    figure = new_figure(5.5, 4)
    axes = figure.add_subplot(
        title=f"errs on at most {100 * promise.error:.3g}%, "
        f"{100 * promise.confidence:.3g}% confidence; {count:,} images",
        xlabel="answered, % of all images",
        ylabel="answered wrongly, % of all images",
        xlim=(0, 102),
    )
    axes.plot(100 * answered, 100 * wrong, color="tab:blue", drawstyle="steps-post")
    axes.axhline(100 * promise.error, linestyle="--", color="gray", label="guaranteed")
    axes.scatter(
        [100 * promise.coverage],
        [100 * promise.wrong / promise.images],
        color="tab:orange",
        zorder=3,
        label=f"this version: answers {promise.coverage:.1%}",
    )
    axes.legend(loc="upper left")
    axes.grid(alpha=0.3)
    save_figure(figure, path)
