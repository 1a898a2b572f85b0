"""An Optuna study of one recipe: its space, its trials, and the record it is continued from."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial
from pydantic import Field, TypeAdapter

from pipeline.artifacts.record import Frozen
from pipeline.params.search import Distribution

# So many trials must complete before one is pruned, and none is pruned in these epochs.
UNPRUNED_TRIALS, UNPRUNED_EPOCHS = 4, 3
# More digits do not matter, and are hard to read in params.yaml.
DIGITS = 4
ENDED = {TrialState.COMPLETE: "COMPLETE", TrialState.PRUNED: "PRUNED", TrialState.FAIL: "FAIL"}
STATES = {name: state for state, name in ENDED.items()}


class TrialRecord(Frozen):
    """The record of a trial that has ended.

    Attributes:
        value: the accuracy on the validation split; of a pruned trial the last one.
        intermediate: the same by epoch.
        run_id: the MLflow run.
        reason: why it failed or was pruned.
    """

    number: int
    params: dict[str, Any]
    value: float | None = None
    state: str = Field(pattern="^(COMPLETE|PRUNED|FAIL)$")
    intermediate: dict[int, float] = Field(default_factory=dict)
    run_id: str | None = None
    flow_run_id: str | None = None
    seconds: float | None = None
    reason: str | None = None


class StudyRecord(Frozen):
    """The record of a study; `recipe` is the one that its trials change."""

    study: str
    dataset: str
    model: str
    recipe: dict[str, Any]
    trials: tuple[TrialRecord, ...] = ()


def distributions(space: Mapping[str, Distribution]) -> dict[str, BaseDistribution]:
    """Return a search space as Optuna takes it."""
    return {key: _distribution(one) for key, one in space.items()}


def _distribution(one: Distribution) -> BaseDistribution:
    if one.choices is not None:
        return CategoricalDistribution(one.choices)
    low, high = one.range
    if one.whole:
        return IntDistribution(int(low), int(high), one.log, int(one.step or 1))
    step = None if one.step is None else float(one.step)
    return FloatDistribution(float(low), float(high), one.log, step)


def new_study(seed: int, known: int, prune: bool) -> optuna.Study:
    """Return an empty study that maximises its value.

    Args:
        seed: the seed of the sampler.
        known: how many earlier trials it has, so that the same seed does not draw them again.
        prune: whether trials that are worse than half of the others end early.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner = optuna.pruners.MedianPruner(UNPRUNED_TRIALS, UNPRUNED_EPOCHS + 1)
    return optuna.create_study(
        direction="maximize",
        # Trials that run at the same time should differ.
        sampler=optuna.samplers.TPESampler(seed=(seed + known) % 2**31, constant_liar=True),
        pruner=pruner if prune else optuna.pruners.NopPruner(),
    )


def restore(
    study: optuna.Study, trials: Iterable[TrialRecord], space: Mapping[str, BaseDistribution]
) -> int:
    """Add earlier trials; return how many were left out because the space has changed."""
    left_out = 0
    for record in trials:
        if set(record.params) != set(space) or not all(
            _fits(space[key], value) for key, value in record.params.items()
        ):
            left_out += 1
            continue
        attributes = {
            "run_id": record.run_id,
            "flow_run_id": record.flow_run_id,
            "seconds": record.seconds,
            "reason": record.reason,
        }
        study.add_trial(
            create_trial(
                state=STATES[record.state],
                value=None if record.state == "FAIL" else record.value,
                params=record.params,
                distributions=dict(space),
                intermediate_values=record.intermediate,
                user_attrs={key: value for key, value in attributes.items() if value is not None},
            )
        )
    return left_out


def _fits(distribution: BaseDistribution, value: Any) -> bool:
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except (TypeError, ValueError):
        return False


def records(study: optuna.Study) -> tuple[TrialRecord, ...]:
    """Return the records of the trials that have ended."""
    return tuple(
        TrialRecord(
            number=trial.number,
            params=trial.params,
            value=trial.value,
            state=ENDED[trial.state],
            intermediate=trial.intermediate_values,
            **{key: trial.user_attrs.get(key) for key in ("run_id", "flow_run_id")},
            seconds=trial.user_attrs.get("seconds"),
            reason=trial.user_attrs.get("reason"),
        )
        for trial in study.trials
        if trial.state in ENDED
    )


def counted(trials: Sequence[TrialRecord]) -> int:
    """Return how many trials count: failed ones do not."""
    return sum(record.state != "FAIL" for record in trials)


def read_record(text: str) -> StudyRecord:
    """Read `trials.json`; ValueError where it is torn or something else."""
    return TypeAdapter(StudyRecord).validate_json(text)


def write_record(record: StudyRecord) -> str:
    """Return `trials.json`."""
    return json.dumps(record.model_dump(mode="json"), indent=1) + "\n"


def chosen(trial: Trial | FrozenTrial) -> dict[str, Any]:
    """Return the rounded values of a trial, with which it is trained and recorded."""
    return {key: _rounded(value, trial.distributions[key]) for key, value in trial.params.items()}


def _rounded(value: Any, distribution: BaseDistribution) -> Any:
    if not isinstance(value, float) or not isinstance(distribution, FloatDistribution):
        return value
    return min(max(float(f"{value:.{DIGITS}g}"), distribution.low), distribution.high)
