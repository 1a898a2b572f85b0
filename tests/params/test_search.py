"""The search space of params.yaml, and how a study of it goes on from its record."""

import warnings

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from flows.search.study import (
    StudyRecord,
    TrialRecord,
    chosen,
    counted,
    distributions,
    new_study,
    read_record,
    records,
    restore,
    write_record,
)
from pipeline.artifacts.project import PARAMS_FILE
from pipeline.errors import ParamsError
from pipeline.params.params import load_params
from tests.conftest import ROOT

GOOD = """\
dataset: digits
models: [cnn]
datasets:
  flowers: {source: flowers.zip, image_size: [32, 32], recipes: digits}
recipes:
  digits:
    cnn: {layers: [flatten, {dense: 8}], epochs: 2}
search:
  digits:
    cnn:
      optimizer.learning_rate: {low: 0.001, high: 0.1, log: true}
      batch_size: {choices: [16, 32]}
      epochs: {low: 5, high: 30, step: 5}
      augmentation.rotation: {low: 0.0, high: 20.0}
      augmentation.color_jitter.hue: {low: 0.0, high: 0.5}
      layers.1.dense: {low: 4, high: 64}
  default:
    dense: {epochs: {low: 1, high: 2}}
"""


def load(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    return load_params(path)


@pytest.fixture
def space(tmp_path):
    return distributions(load(tmp_path, GOOD).space("digits", "cnn"))


@pytest.fixture
def study():
    return new_study(seed=1, known=0, prune=True)


def test_what_ships_has_a_space_for_every_dense_and_cnn():
    params = load_params(ROOT / PARAMS_FILE)
    for dataset in ("digits", "fashion_mnist", "mnist", "cifar10", "cifar10_images"):
        for model in ("dense", "cnn"):
            assert distributions(params.space(dataset, model))


def test_a_space_becomes_the_distributions_of_optuna(space):
    assert space == {
        "optimizer.learning_rate": FloatDistribution(0.001, 0.1, log=True),
        "batch_size": CategoricalDistribution((16, 32)),
        "epochs": IntDistribution(5, 30, step=5),
        "augmentation.rotation": FloatDistribution(0.0, 20.0),
        "augmentation.color_jitter.hue": FloatDistribution(0.0, 0.5),
        "layers.1.dense": IntDistribution(4, 64),
    }


def test_a_space_is_own_borrowed_or_default(tmp_path):
    params = load(tmp_path, GOOD)
    assert params.space("flowers", "cnn") == params.space("digits", "cnn")
    assert set(params.space("flowers", "dense")) == {"epochs"}
    with pytest.raises(ParamsError, match=r"no search.digits.fast .*there is: digits.cnn, default"):
        params.space("digits", "fast")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("batch_size:", "batchsize:", ["search.digits.cnn", "no 'batchsize'", "batch_size"]),
        ("optimizer.learning_rate", "loss.rate", ["loss has no 'rate'", "name, gamma, alpha"]),
        ("optimizer.learning_rate", "optimizer.rate", ["optimizer has no 'rate'", "learning_rate"]),
        ("optimizer.learning_rate", "optimizer", ["name one of its keys: name, learning_rate"]),
        ("epochs: {low: 5", "epochs.x: {low: 5", ["epochs is a value and has no keys"]),
        ("epochs: {low: 5", "seed: {low: 5", ["a recipe has no 'seed' to search"]),
        ("layers.1.dense", "layers.dense", ["expected layers.<number from 0>.<key>"]),
        ("layers.1.dense", "layers.1.units", ["no layer has 'units'", "conv, kernel_size"]),
        ("[16, 32]", "[16, 0]", ["batch_size", "greater than or equal to 1; received 0"]),
        ("[16, 32]", "[16, a]", ["batch_size", "valid integer", "received 'a'"]),
        ("[16, 32]", "[]", ["params.yaml:12: search.digits.cnn.batch_size.choices"]),
        ("{low: 5, high: 30, step: 5}", "{low: 5.0, high: 30.0}", ["epochs", "valid integer"]),
        ("low: 5, high: 30", "low: 30, high: 5", ["low must be less than high; received 30 and 5"]),
        ("low: 0.001,", "low: 0.0,", ["log needs a low above 0"]),
        ("high: 0.1,", "high: 20,", ["less than or equal to 10; received 20"]),
        ("log: true", "log: true, step: 0.1", ["takes no step"]),
        ("step: 5", "step: 0.5", ["a step between whole numbers is one"]),
        ("{choices: [16, 32]}", "{choices: [16], low: 1}", ["choices cannot be combined"]),
        ("{choices: [16, 32]}", "{low: 1}", ["expected {low: …, high: …} or {choices: […]}"]),
        ("{choices: [16, 32]}", "{lo: 1}", ["unknown key; allowed: low, high", "mean low?"]),
    ],
)
def test_a_mistake_names_key_and_what_is_allowed(tmp_path, old, new, words):
    assert old in GOOD
    with pytest.raises(ParamsError) as caught:
        load(tmp_path, GOOD.replace(old, new, 1))
    for word in words:
        assert word in str(caught.value)


def test_values_are_rounded_and_stay_within_the_range(study):
    space = {"a": FloatDistribution(0.00012345, 1.0, log=True), "b": IntDistribution(1, 9)}
    for _ in range(20):
        values = chosen(study.ask(space))
        assert values["a"] == max(float(f"{values['a']:.4g}"), 0.00012345)
        assert type(values["b"]) is int


def finish(study, space, count):
    for number in range(count):
        trial = study.ask(space)
        trial.set_user_attr("run_id", f"run{number}")
        trial.report(0.5, 1)
        trial.report(0.6 + number / 100, 2)
        study.tell(trial, 0.6 + number / 100)
    pruned = study.ask(space)
    pruned.report(0.1, 1)
    study.tell(pruned, state=optuna.trial.TrialState.PRUNED)
    failed = study.ask(space)
    failed.set_user_attr("reason", "no disk")
    study.tell(failed, state=optuna.trial.TrialState.FAIL)
    study.ask(space)  # still trains


def record_of(study):
    return StudyRecord(study="s", dataset="digits", model="cnn", recipe={}, trials=records(study))


def test_a_study_goes_on_from_its_record(study, space):
    finish(study, space, 3)
    text = write_record(record_of(study))
    read = read_record(text)
    assert read == record_of(study)
    assert [trial.state for trial in read.trials] == [*["COMPLETE"] * 3, "PRUNED", "FAIL"]
    assert counted(read.trials) == 4
    again = new_study(seed=1, known=len(read.trials), prune=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert restore(again, read.trials, space) == 0
    assert records(again) == read.trials
    assert again.best_value == study.best_value
    assert again.ask(space).number == 5


def test_a_seed_does_not_draw_the_same_again_when_a_study_goes_on(study, space):
    first = study.ask(space).params
    assert new_study(1, 0, True).ask(space).params == first
    assert new_study(1, 5, True).ask(space).params != first


def test_trials_that_do_not_fit_the_space_any_more_are_counted(study, space):
    finish(study, space, 2)
    trials = records(study)
    other = {**space, "batch_size": CategoricalDistribution((128, 256))}
    assert restore(new_study(1, 4, True), trials, other) == 4
    fewer = {key: value for key, value in space.items() if key != "batch_size"}
    assert restore(new_study(1, 4, True), trials, fewer) == 4
    wider = {**space, "epochs": IntDistribution(5, 50, step=5)}
    assert restore(new_study(1, 4, True), trials, wider) == 0


def test_a_torn_record_is_refused():
    with pytest.raises(ValueError, match="EOF"):
        read_record('{"study": "x", "trials": [')


def test_poor_trials_are_pruned_once_others_are_known(space):
    study = new_study(0, 0, True)
    for _ in range(4):
        trial = study.ask(space)
        for epoch in range(1, 8):
            trial.report(0.9, epoch)
            assert not trial.should_prune()
        study.tell(trial, 0.9)
    poor = study.ask(space)
    pruned_at = []
    for epoch in range(1, 8):
        poor.report(0.1, epoch)
        if poor.should_prune():
            pruned_at.append(epoch)
    assert pruned_at[0] == 4


def test_a_record_knows_three_states():
    with pytest.raises(ValueError, match="state"):
        TrialRecord(number=0, params={}, state="RUNNING")
