"""What is asked of a run: read, checked, and written into params.yaml."""

import difflib
import shutil
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from flows.forms.form import CHOICES, RecipeChanges, dataset_names, model_names
from flows.forms.request import Request, read_settings
from pipeline.errors import ParamsError
from pipeline.models.recipes import Recipe
from pipeline.params.params import load_params
from tests.conftest import ROOT


@pytest.fixture
def params(tmp_path):
    return Path(shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml"))


def changed_lines(params):
    before, after = (path.read_text().splitlines() for path in (ROOT / "params.yaml", params))
    return [line[2:] for line in difflib.ndiff(before, after) if line.startswith("+ ")]


def test_what_is_not_asked_for_stays_to_the_byte(params):
    Request().apply(params)
    same = CHOICES
    Request(dataset=same.dataset, models=same.models, device=same.device, auto_promote=True).apply(
        params
    )
    assert params.read_bytes() == (ROOT / "params.yaml").read_bytes()


def test_only_the_lines_that_are_asked_for_change_and_comments_stay(params):
    asked = Request(
        dataset="fashion_mnist",
        models=("cnn",),
        overrides={"cnn": {"epochs": 3, "batch_size": 64}},
        seed=7,
        auto_promote=False,
    )
    after = asked.apply(params)
    assert after == load_params(params)
    assert (after.dataset, after.models, after.seed) == ("fashion_mnist", ("cnn",), 7)
    assert not after.auto_promote
    recipe = after.recipe("fashion_mnist", "cnn")
    assert (recipe.epochs, recipe.batch_size) == (3, 64)
    lines = changed_lines(params)
    assert [line.split(":")[0].strip() for line in lines] == [
        "dataset",
        "models",
        "seed",
        "auto_promote",
        "epochs",
        "batch_size",
    ]
    assert "# for every recipe without its own" in lines[2]


def test_a_nested_change_leaves_the_rest_of_what_it_changes(params):
    Request(overrides={"cnn": {"optimizer": {"learning_rate": 0.5}}}, dataset="cifar10").apply(
        params
    )
    optimizer = load_params(params).recipe("cifar10", "cnn").optimizer
    assert (optimizer.name, optimizer.learning_rate, optimizer.momentum) == ("sgd", 0.5, 0.9)


@pytest.mark.parametrize("dataset", [name for name in CHOICES.recipes if name != "default"])
def test_a_run_changes_one_line_per_value_in_whichever_recipe(params, dataset):
    """Also of a list of layers that is written over several lines."""
    for model in CHOICES.recipes[dataset]:
        params.write_bytes((ROOT / "params.yaml").read_bytes())
        asked = {"epochs": 3, "optimizer": {"weight_decay": 0.125}}
        after = Request(dataset=dataset, models=(model,), overrides={model: asked}).apply(params)
        recipe = after.recipe(dataset, model)
        assert (recipe.epochs, recipe.optimizer.weight_decay) == (3, 0.125)
        before = CHOICES.recipe(dataset, model)
        optimizer = before.optimizer.model_copy(update={"weight_decay": 0.125})
        assert recipe == before.model_copy(update={"epochs": 3, "optimizer": optimizer})
        keys = {line.split(":")[0].strip() for line in changed_lines(params)}
        assert keys <= {"dataset", "models", "epochs", "optimizer"}


def test_a_list_of_layers_is_replaced_and_the_lines_around_it_stay(params):
    layers = ["flatten", {"dense": 8}, {"batch_norm": True, "momentum": 0.5}]
    after = Request(overrides={"cnn": {"layers": layers}}).apply(params)
    assert [type(layer).__name__ for layer in after.recipe("digits", "cnn").layers] == [
        "Flatten",
        "Dense",
        "BatchNorm",
    ]
    assert changed_lines(params) == [
        "      layers: [flatten, {dense: 8}, {batch_norm: true, momentum: 0.5}]"
    ]


def test_an_override_that_is_there_changes_nothing(params):
    asked = {"epochs": 30, "schedule": {"name": "cosine"}, "augmentation": {}}
    Request(overrides={"cnn": asked}).apply(params)
    assert params.read_bytes() == (ROOT / "params.yaml").read_bytes()


def test_a_shorthand_that_is_changed_keeps_its_name(params):
    asked = {"optimizer": {"learning_rate": 0.5}, "loss": {"name": "focal", "gamma": 3}}
    Request(overrides={"dense": asked}, dataset="cifar10").apply(params)
    changed = load_params(params).recipe("cifar10", "dense")
    assert changed.optimizer.name == "rmsprop"
    assert (changed.loss.name, changed.loss.gamma) == ("focal", 3)


def test_a_seed_reaches_a_recipe_that_has_its_own(params):
    text = params.read_text().replace("      epochs: 30\n", "      epochs: 30\n      seed: 5\n", 1)
    params.write_text(text)
    assert load_params(params).recipe("digits", "cnn").seed == 5
    assert Request(seed=9).apply(params).recipe("digits", "cnn").seed == 9


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"dataset": "digit"}, "unknown dataset 'digit'.*did you mean digits"),
        ({"models": ("cnn", "fast")}, "unknown model 'fast' for dataset 'digits'; allowed: dense"),
        ({"overrides": {"fast": {"epochs": 3}}}, "overrides: 'fast' is not trained; allowed"),
        ({"overrides": {"cnn": {"epochs": 0}}}, r"params.yaml:\d+: recipes.digits.cnn.epochs: "),
        ({"overrides": {"cnn": {"epoch": 3}}}, "unknown key; allowed: .*did you mean epochs"),
        ({"models": ("cnn", "cnn")}, "a model is named twice"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_changes(params, asked, reason):
    with pytest.raises(ParamsError, match=reason):
        Request(**asked).apply(params)
    assert params.read_bytes() == (ROOT / "params.yaml").read_bytes()
    assert [path.name for path in params.parent.iterdir()] == ["params.yaml"]


def test_settings_are_read_as_yaml():
    settings = ["cnn.epochs=3", "cnn.optimizer.learning_rate=1e-2", "dense.layers=[flatten]"]
    assert read_settings(settings, ["cnn", "dense"]) == {
        "cnn": {"epochs": 3, "optimizer": {"learning_rate": 0.01}},
        "dense": {"layers": ["flatten"]},
    }


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("cnn.epochs", "expected MODEL.KEY=VALUE"),
        ("epochs=3", "expected MODEL.KEY=VALUE"),
        ("cn.epochs=3", "'cn' is not trained; allowed: cnn.*did you mean cnn"),
        ("cnn.epoch=3", "a recipe has no 'epoch'.*did you mean epochs"),
        ("cnn.epochs.x=3", "recipes.digits.cnn.epochs: "),
    ],
)
def test_a_setting_that_is_none_is_refused(params, setting, reason):
    with pytest.raises(ParamsError, match=reason):
        Request(overrides=read_settings([setting], ["cnn"])).apply(params)


def test_the_form_offers_every_dataset_and_every_model():
    assert {"digits", "mnist", "cifar10_images"} <= set(dataset_names(CHOICES))
    assert set(model_names(CHOICES)) == {name for r in CHOICES.recipes.values() for name in r}


def test_the_form_has_the_ranges_of_the_recipe_and_no_defaults():
    schema = TypeAdapter(RecipeChanges).json_schema()
    assert set(schema["properties"]) == set(Recipe.model_fields)
    assert schema["properties"]["epochs"] == {
        "title": "epochs",
        "type": "integer",
        "minimum": 1,
        "maximum": 10_000,
    }
    assert "required" not in schema
    for bad in ({"epochs": 0}, {"epoch": 1}, {"optimizer": {"momentum": 1.5}}):
        with pytest.raises(ValidationError):
            RecipeChanges.model_validate(bad)
