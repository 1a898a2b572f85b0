"""New values of a recipe: as overrides of a run, and as a patch of params.yaml."""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flows.forms.request import Request
from flows.forms.yaml_edit import edit
from pipeline.artifacts.project import PARAMS_FILE
from pipeline.errors import ParamsError
from pipeline.models.recipes import Recipe
from pipeline.params.params import Params, load_params


def changes(values: Mapping[str, Any], recipe: Recipe) -> dict[str, Any]:
    """Return dotted keys and values as overrides of a recipe.

    A list is replaced as a whole, so if one layer changes, all layers are included.

    Args:
        values: such as `{"optimizer.learning_rate": 0.01, "layers.2.dropout": 0.5}`.
        recipe: the recipe that they change.

    Raises:
        ParamsError: the recipe has fewer layers.
    """
    nested: dict[str, Any] = {}
    for key, value in values.items():
        first, *rest = key.split(".")
        if first == "layers":
            dumped = recipe.model_dump(mode="json", exclude_none=True)["layers"]
            layers = nested.setdefault("layers", dumped)
            number, name = int(rest[0]), rest[1]
            if number >= len(layers):
                raise ParamsError(f"{key}: the recipe has the layers 0 to {len(layers) - 1}")
            layers[number] = {**layers[number], name: value}
            continue
        target, keys = nested, [first, *rest]
        for part in keys[:-1]:
            target = target.setdefault(part, {})
        target[keys[-1]] = value
    return nested


def apply(text: str, dataset: str, model: str, values: Mapping[str, Any]) -> str:
    """Return params.yaml with new values in one recipe, and everything else unchanged.

    Args:
        text: the text of params.yaml.
        dataset: the dataset that uses the recipe.
        model: the name of the recipe.
        values: new values by dotted key, such as `{"optimizer.learning_rate": 0.01}`.

    Raises:
        ParamsError: the file shares the recipe with others, for example with YAML anchors.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / PARAMS_FILE
        before = _load(path, text)
        owner = before.recipes_key(dataset)
        changed = Request(
            dataset=dataset,
            models=(model,),
            overrides={model: changes(values, before.recipe(dataset, model))},
        ).apply(path)
        own = {**before.recipes[owner], model: changed.recipes[owner][model]}
        expected = before.model_copy(update={"recipes": {**before.recipes, owner: own}})
        for key, value in values.items():
            text = edit(text, ["recipes", owner, model, *key.split(".")], value)
        if _load(path, text) != expected:
            listed = ", ".join(f"{key}: {value}" for key, value in values.items())
            raise ParamsError(
                f"params.yaml does not let recipes.{owner}.{model} be changed alone, it may hold "
                f"anchors; write it by hand: {listed}"
            )
    return text


def _load(path: Path, text: str) -> Params:
    path.write_text(text, newline="")
    return load_params(path)


def diff(old: str, new: str) -> str:
    """Return the difference between two texts of params.yaml as a patch for `git apply`."""
    with TemporaryDirectory() as folder:
        for side, text in (("a", old), ("b", new)):
            path = Path(folder) / side / PARAMS_FILE
            path.parent.mkdir()
            path.write_text(text, newline="")
        names = [f"a/{PARAMS_FILE}", f"b/{PARAMS_FILE}"]
        options = ["--no-index", "--no-prefix", "--no-color", "--no-ext-diff"]
        done = subprocess.run(
            ["git", "-c", "core.autocrlf=false", "diff", *options, *names],
            cwd=folder,
            capture_output=True,
            check=False,
        )
    if done.returncode > 1:  # 1 means that they differ
        raise ParamsError(f"git diff failed: {' '.join(done.stderr.decode().split())}")
    return done.stdout.decode()


def make(text: str, dataset: str, model: str, values: Mapping[str, Any]) -> str:
    """Return a patch that gives a recipe new values; empty if the recipe has them already.

    Raises:
        ParamsError: as `apply`.
    """
    return diff(text, apply(text, dataset, model, values))
