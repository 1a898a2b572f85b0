"""The patch that `tune` ends with."""

import subprocess

import pytest

from flows.forms.patch import changes, make
from pipeline.errors import ParamsError
from pipeline.params.params import load_params
from tests.conftest import ROOT

SHIPPED = (ROOT / "params.yaml").read_text()


def patched(tmp_path, dataset, model, values, text=SHIPPED):
    """Return the params.yaml that git makes of a patch."""
    (tmp_path / "params.yaml").write_text(text, newline="")
    patch = make(text, dataset, model, values)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", "apply", "-"], cwd=tmp_path, input=patch, text=True, check=True)
    return tmp_path / "params.yaml", patch


@pytest.mark.parametrize(
    ("dataset", "model", "values"),
    [
        (
            "digits",
            "cnn",
            {
                "optimizer.learning_rate": 0.00123,
                "batch_size": 64,
                "epochs": 25,
                "augmentation.rotation": 12.5,
                "layers.6.dropout": 0.5,
            },
        ),
        ("mnist", "cnn", {"optimizer.learning_rate": 1e-05, "augmentation.flip": "none"}),
        ("cifar10", "cnn_bn", {"layers.1.momentum": 0.9, "schedule.name": "cosine"}),
        ("cifar10", "fast", {"optimizer.name": "sgd", "schedule.warmup": 0.3, "keep": "best"}),
        ("fashion_mnist", "dense", {"optimizer.nesterov": False, "layers.1.dense": 32}),
        ("fashion_mnist", "best", {"layers.2.scale": False, "layers.6.momentum": 0.7}),
        ("cifar10_images", "dense", {"epochs": 3}),
    ],
)
def test_git_takes_the_patch_and_the_recipe_has_the_values(tmp_path, dataset, model, values):
    before = load_params(ROOT / "params.yaml")
    path, patch = patched(tmp_path, dataset, model, values)
    recipe = load_params(path).recipe(dataset, model).model_dump(mode="json")
    for key, value in values.items():
        found = recipe
        for part in key.split("."):
            found = found[int(part) if isinstance(found, list) else part]
        assert found == value
    owner = "cifar10" if dataset == "cifar10_images" else dataset
    after = load_params(path)
    for name, recipes in before.recipes.items():
        for other, one in recipes.items():
            assert (name, other) == (owner, model) or after.recipes[name][other] == one
    changed = [line for line in patch.splitlines() if line.startswith("+") and line[1] != "+"]
    comments = [line for line in SHIPPED.splitlines() if "#" in line]
    assert [line for line in path.read_text().splitlines() if "#" in line] == comments
    assert len(changed) <= len(values)


def test_values_that_are_there_make_an_empty_patch():
    assert make(SHIPPED, "digits", "cnn", {"epochs": 30}) == ""


def test_a_file_without_a_last_newline_is_patched_as_well(tmp_path):
    text = "dataset: digits\nmodels: [cnn]\nrecipes:\n  digits:\n    cnn:\n      layers: []\n"
    path, _ = patched(tmp_path, "digits", "cnn", {"epochs": 4}, text + "      epochs: 3")
    assert path.read_text().endswith("epochs: 4")
    assert load_params(path).recipe("digits", "cnn").epochs == 4


def test_a_recipe_behind_an_anchor_is_not_changed_by_accident():
    text = (
        "dataset: digits\nmodels: [cnn]\nrecipes:\n  digits:\n"
        "    cnn: &a {layers: [], epochs: 3}\n    dense: *a\n"
    )
    with pytest.raises(ParamsError, match=r"write it by hand: epochs: 4"):
        make(text, "digits", "cnn", {"epochs": 4})


def test_layers_are_replaced_as_a_whole_and_the_rest_is_nested():
    recipe = load_params(ROOT / "params.yaml").recipe("digits", "dense")
    made = changes({"layers.2.dropout": 0.5, "optimizer.learning_rate": 0.1, "epochs": 3}, recipe)
    assert made["optimizer"] == {"learning_rate": 0.1}
    assert made["epochs"] == 3
    assert made["layers"][2] == {"dropout": 0.5}
    assert len(made["layers"]) == len(recipe.layers)
    with pytest.raises(ParamsError, match="the recipe has the layers 0 to 4"):
        changes({"layers.9.dropout": 0.5}, recipe)
