"""The results of a search: the best recipe as a patch, a table of the trials, and charts."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import optuna
from prefect import get_run_logger

from flows.forms import patch
from flows.pages import charts, view
from flows.search.children import ChildrenError
from flows.search.study import StudyRecord, TrialRecord, chosen
from pipeline.errors import ParamsError
from pipeline.reports.markdown import Markdown, escape, fenced, row

if TYPE_CHECKING:
    from pipeline.tracking.groups import Groups
    from pipeline.tracking.run import Run

PATCH = "params.patch"
SHOWN = 20
# Fewer say nothing about importances.
TRIALS_FOR_IMPORTANCES = 4


def show(
    record: StudyRecord, parent: "Run", groups: "Groups", text: str, study: optuna.Study
) -> str:
    """Show the results, store them with the parent run, and return the patch.

    Args:
        record: the record of the study.
        parent: the MLflow run of this search.
        groups: where the trials' runs are.
        text: the params.yaml that the search started from.
        study: the same study in Optuna.

    Raises:
        ChildrenError: no trial has completed.
    """
    done = [trial for trial in record.trials if trial.state == "COMPLETE"]
    if not done:
        reasons = {trial.reason for trial in record.trials if trial.reason}
        raise ChildrenError(f"no trial has completed: {'; '.join(sorted(reasons)[:3])}")
    values = chosen(study.best_trial)
    made = _patch(record, values, text)
    experiments = groups.adopt(parent.run_id, [one.run_id for one in done if one.run_id])
    tables = page(record, values, study.best_value, experiments)
    link = view.page_link("The search in MLflow", parent.experiment_id, parent.run_id)
    view.show_page("tuning", [*tables, "", link], "The best recipe.")
    view.show_page("patch", [patch_page(made)], "The best recipe as a patch.")
    parent.log_metrics({"best_val_accuracy": study.best_value, "trials": len(record.trials)})
    parent.log_tags({f"best.{key}": value for key, value in values.items()})
    parent.log_text(made, PATCH)
    _pictures(record, parent, study)
    return made


def _patch(record: StudyRecord, values: Mapping[str, Any], text: str) -> str:
    try:
        return patch.make(text, record.dataset, record.model, values)
    except ParamsError as error:
        # The results are shown all the same.
        get_run_logger().warning("there is no patch: %s", error)
        return ""


def patch_page(made: str) -> str:
    """Return how to apply a patch, and the patch."""
    if not made:
        return "params.yaml stays as it is."
    return f"Save it, and run `git apply {PATCH}`.\n\n{fenced(made, 'diff')}"


def page(
    record: StudyRecord,
    values: Mapping[str, Any],
    value: float,
    experiments: Mapping[str, str],
) -> list[str]:
    """Return the lines of the page: the best values, then the trials.

    Args:
        record: the record of the study.
        values: the settings of the best trial.
        value: its accuracy.
        experiments: the experiments of the MLflow runs, by run_id.
    """
    return [*_best(record, values, value), *_table(record, experiments)]


def _best(record: StudyRecord, values: Mapping[str, Any], value: float) -> list[str]:
    states = [trial.state for trial in record.trials]
    return [
        f"# {escape(f'{record.dataset} {record.model}')}: {value:.2%} on the validation split",
        "",
        f"{len(states)} trials: {states.count('COMPLETE')} complete, {states.count('PRUNED')} "
        f"pruned, {states.count('FAIL')} failed.",
        "",
        "| key | best value |",
        "|---|---|",
        *(row(key, _shown(one)) for key, one in values.items()),
        "",
    ]


def _table(record: StudyRecord, experiments: Mapping[str, str]) -> list[str]:
    """Return the trials, the best first; those without a value last."""
    trials = sorted(record.trials, key=lambda one: (one.state != "COMPLETE", -(one.value or 0)))
    keys = list(trials[0].params)
    lines = [
        row("trial", "validation", *keys, "training", "run"),
        f"|---|---|{'---|' * len(keys)}---|---|",
    ]
    for trial in trials[:SHOWN]:
        cells = [_shown(trial.params[key]) for key in keys]
        seconds = "" if trial.seconds is None else f"{trial.seconds:.1f} s"
        link = _link(trial, experiments)
        lines.append(row(trial.number, _value(trial), *cells, seconds, link))
    if len(trials) > SHOWN:
        lines += ["", f"And {len(trials) - SHOWN} more, all in `trials.json`."]
    return lines


def _value(trial: TrialRecord) -> str:
    if trial.state == "COMPLETE":
        return f"{trial.value:.2%}"
    return (trial.reason or trial.state.lower())[:80]


def _link(trial: TrialRecord, experiments: Mapping[str, str]) -> Markdown:
    run_id = trial.run_id
    if not run_id:
        return Markdown()
    return view.page_link(run_id[:8], experiments.get(run_id), run_id)


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _pictures(record: StudyRecord, parent: "Run", study: optuna.Study) -> None:
    with TemporaryDirectory() as folder:
        trials = Path(folder) / "trials.png"
        charts.draw_trials(trials, record.trials)
        parent.log_artifact(trials)
        view.show_picture(trials, "trials", "The value of every trial, and the best so far.")
        if shares := importances(study):
            picture = Path(folder) / "importances.png"
            charts.draw_importances(picture, shares)
            parent.log_artifact(picture)
            view.show_picture(picture, "importances", "What the differences come from.")


def importances(study: optuna.Study) -> dict[str, float]:
    """Return how much of the differences between trials each key explains; empty for too few."""
    values = {trial.value for trial in study.trials if trial.value is not None}
    if len(study.trials) < TRIALS_FOR_IMPORTANCES or len(values) < 2:
        return {}
    try:
        return optuna.importance.get_param_importances(study)  # type: ignore[no-any-return]
    except (RuntimeError, ValueError) as error:
        get_run_logger().info("no picture of importances: %s", error)
        return {}
