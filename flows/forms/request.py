"""The request for a run, written into the params.yaml that the run reads."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field
from ruamel.yaml import YAML

from flows.forms.form import Seed, dataset_names
from flows.forms.yaml_edit import edit, read
from pipeline.artifacts.files import atomic
from pipeline.artifacts.record import DeviceChoice, Frozen
from pipeline.errors import ParamsError, did_you_mean
from pipeline.models.recipes import Recipe
from pipeline.params.params import Params, load_params


def read_settings(settings: list[str], models: list[str]) -> dict[str, dict[str, Any]]:
    """Read `cnn.epochs=3`, `cnn.optimizer.learning_rate=0.01` into changes by model.

    Args:
        settings: as typed; the value is YAML.
        models: the models that may be changed.

    Raises:
        ParamsError: a setting has no `=`, or names another model or a key that no recipe has.
    """
    changes: dict[str, dict[str, Any]] = {}
    for setting in settings:
        path, equals, text = setting.partition("=")
        model, *keys = path.strip().split(".")
        if not equals or not keys:
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
    """What a run changes; None leaves the value of params.yaml."""

    dataset: str | None = None
    models: tuple[str, ...] | None = None
    overrides: dict[str, dict[str, Any]] = Field(default_factory=dict)
    device: DeviceChoice | None = None
    seed: Seed | None = None
    auto_promote: bool | None = None

    def apply(self, path: Path) -> Params:
        """Write the request into a params.yaml, and check the whole file.

        The file changes only if the request is allowed, and only in the values that differ.

        Args:
            path: the params.yaml.

        Returns:
            The parameters with the request applied.

        Raises:
            ParamsError: a value does not exist or is out of range.
        """
        before = load_params(path)
        text = path.read_bytes().decode()
        edited = self._edited(text, before)
        if edited == text:
            self._check(before)
            return before
        with atomic(path) as part:
            part.write_bytes(edited.encode())
            try:
                after = load_params(part)
            except ParamsError as error:
                raise ParamsError(str(error).replace(str(part), path.name)) from None
            self._check(after)
        return after

    def _edited(self, text: str, before: Params) -> str:
        """Return the text with each value that the request changes."""
        wanted = {
            "dataset": self.dataset,
            "models": list(self.models) if self.models else None,
            "device": self.device,
            "seed": self.seed,
            "auto_promote": self.auto_promote,
        }
        wanted = {key: value for key, value in wanted.items() if value is not None}
        for key, value in wanted.items():
            if value != _plain(getattr(before, key)):
                text = edit(text, [key], value)
        content = YAML(typ="safe").load(text)
        for keys, value in self._recipe_changes(before.model_copy(update=wanted), content):
            if not _same(read(content, keys), value):
                text = edit(text, keys, value)
        return text

    def _check(self, params: Params) -> None:
        """Refuse mistakes that no stage would notice, or only the last one."""
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

    def _recipe_changes(
        self, params: Params, content: dict[str, Any]
    ) -> Iterator[tuple[list[str], Any]]:
        """Yield the keys and the value of each change of the recipes as they are written."""
        owner = params.recipes_key(params.dataset)
        written = content.get("recipes", {}).get(owner, {})
        for model in params.models:
            if self.seed is not None and "seed" in written.get(model, {}):
                yield ["recipes", owner, model, "seed"], self.seed
        for model, overrides in self.overrides.items():
            if model in written:
                for keys, value in _leaves(overrides):
                    yield ["recipes", owner, model, *keys], value


def _leaves(nested: Mapping[str, Any]) -> Iterator[tuple[list[str], Any]]:
    """Yield the keys and the value of each entry that is not a mapping itself."""
    for key, value in nested.items():
        if isinstance(value, Mapping) and value:
            yield from (([key, *keys], leaf) for keys, leaf in _leaves(value))
        else:
            yield [key], value


def _same(written: Any, value: Any) -> bool:
    """Whether a value needs no edit: it is there, or it is a mapping that changes no key."""
    return written == value or (value == {} and isinstance(written, str | dict))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
