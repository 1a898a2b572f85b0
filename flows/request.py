"""What somebody asks of a run, written into the params.yaml that it reads."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field
from ruamel.yaml import YAML

from flows.form import Device, Seed, dataset_names
from pipeline.artifacts.files import atomic
from pipeline.artifacts.record import Frozen
from pipeline.errors import ParamsError, did_you_mean
from pipeline.models.recipes import Recipe
from pipeline.params.params import Params, load_params

# Shorthands of a recipe: `optimizer: adam` is `optimizer: {name: adam}`.
NAMED = ("optimizer", "schedule")


def read_settings(settings: list[str], models: list[str]) -> dict[str, dict[str, Any]]:
    """Read `cnn.epochs=3`, `cnn.optimizer.learning_rate=0.01` into changes by model.

    Args:
        settings: as they were typed; the value is YAML.
        models: those that may be changed.

    Raises:
        ParamsError: one has no `=`, or names another model or a key that no recipe has.
    """
    changes: dict[str, dict[str, Any]] = {}
    for setting in settings:
        path, sign, text = setting.partition("=")
        model, *keys = path.strip().split(".")
        if not sign or not keys:
            raise ParamsError(f"--set {setting}: expected MODEL.KEY=VALUE, such as cnn.epochs=3")
        if model not in models:
            raise ParamsError(
                f"--set {setting}: {model!r} is not trained; allowed: {', '.join(models)}"
                + did_you_mean(model, models)
            )
        if keys[0] not in Recipe.model_fields:
            allowed = list(Recipe.model_fields)
            raise ParamsError(
                f"--set {setting}: a recipe has no {keys[0]!r}; allowed: {', '.join(allowed)}"
                + did_you_mean(keys[0], allowed)
            )
        target = changes.setdefault(model, {})
        for key in keys[:-1]:
            target = target.setdefault(key, {})
        target[keys[-1]] = YAML(typ="safe").load(text)
    return changes


class Request(Frozen):
    """A run as it is asked for; what is None stays as params.yaml has it."""

    dataset: str | None = None
    models: tuple[str, ...] | None = None
    overrides: dict[str, dict[str, Any]] = Field(default_factory=dict)
    device: Device | None = None
    seed: Seed | None = None
    promote: bool | None = None

    def apply(self, path: Path) -> Params:
        """Write the request into a params.yaml, comments kept, and check the whole of it.

        The file changes only if all of it is allowed, and only where the request differs.

        Args:
            path: of the params.yaml.

        Returns:
            The parameters as they stand now.

        Raises:
            ParamsError: it asks for something that does not exist or is out of range.
        """
        before = load_params(path)
        yaml = YAML()
        yaml.width, yaml.preserve_quotes = 4096, True
        yaml.brace_single_entry_mapping_in_flow_sequence = True
        yaml.indent(mapping=2, sequence=4, offset=2)
        content = yaml.load(path)
        wanted = {
            "dataset": self.dataset,
            "models": list(self.models) if self.models else None,
            "device": self.device,
            "seed": self.seed,
            "auto_promote": self.promote,
        }
        changed = False
        for key, value in wanted.items():
            if value is not None and value != _plain(getattr(before, key)):
                if key == "models":
                    content[key][:] = value
                else:
                    content[key] = value
                changed = True
        params = before.model_copy(
            update={key: value for key, value in wanted.items() if value is not None}
        )
        changed |= self._change_recipes(params, content["recipes"])
        if not changed:
            self._check(before)
            return before
        with atomic(path) as part:
            yaml.dump(content, part)
            try:
                after = load_params(part)
            except ParamsError as error:
                raise ParamsError(str(error).replace(str(part), path.name)) from None
            self._check(after)
        return after

    def _check(self, params: Params) -> None:
        """Refuse what no stage would notice, or only the last one."""
        allowed = dataset_names(params)
        if params.dataset not in allowed:
            raise ParamsError(
                f"unknown dataset {params.dataset!r}; allowed: {', '.join(allowed)}"
                + did_you_mean(params.dataset, allowed)
            )
        for model in params.models:
            params.recipe(params.dataset, model)
        for model in self.overrides:
            if model not in params.models:
                raise ParamsError(
                    f"overrides: {model!r} is not trained; allowed: {', '.join(params.models)}"
                    + did_you_mean(model, list(params.models))
                )

    def _change_recipes(self, params: Params, recipes: Any) -> bool:
        """Merge the overrides into the recipes as they are written; return whether any differs."""
        entry = params.datasets.get(params.dataset)
        owner = entry.recipes if entry and entry.recipes else params.dataset
        written = recipes.get(owner) or recipes.get("default", {})
        changed = False
        for model in params.models:
            if model in written and self.seed is not None and "seed" in written[model]:
                changed |= written[model]["seed"] != self.seed
                written[model]["seed"] = self.seed
        for model, overrides in self.overrides.items():
            if model in written:
                changed |= _merge(written[model], overrides)
        return changed


def _merge(target: Any, overrides: Mapping[str, Any]) -> bool:
    """Put the overrides into a recipe, nested ones key by key; return whether any differs."""
    changed = False
    for key, value in overrides.items():
        if isinstance(target.get(key), str) and key in NAMED and isinstance(value, dict):
            target[key] = {"name": target[key]}
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            changed |= _merge(target[key], value)
        elif key not in target or target[key] != value:
            target[key] = value
            changed = True
    return changed


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
