"""params.yaml, read into frozen typed values; anything that is not allowed is an error."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError

from pipeline.artifacts.project import PARAMS_FILE
from pipeline.artifacts.record import DeviceChoice, Frozen
from pipeline.data.settings import ImageFolder, Name, Preprocess
from pipeline.errors import ParamsError, did_you_mean
from pipeline.models.layers import BY_KIND
from pipeline.models.recipes import Recipe
from pipeline.params.search import Space
from pipeline.production.rules import Thresholds
from pipeline.validation.limits import Limits


class Params(Frozen):
    """All of params.yaml."""

    dataset: Name
    models: Annotated[tuple[Name, ...], Field(min_length=1)]
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    device: DeviceChoice = "auto"
    deterministic: bool = False
    datasets: dict[Name, ImageFolder] = Field(default_factory=dict)
    validation: dict[Name, Limits] = Field(default_factory=dict)
    preprocess: Preprocess = Preprocess()
    promotion: Thresholds = Thresholds()
    auto_promote: bool = True
    recipes: dict[Name, dict[Name, Recipe]] = Field(default_factory=dict)
    search: dict[Name, dict[Name, Space]] = Field(default_factory=dict)

    @field_validator("models")
    @classmethod
    def _distinct(cls, models: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(models)) < len(models):
            raise ValueError(f"a model is named twice: {', '.join(models)}")
        return models

    def recipes_for(self, dataset: str) -> dict[str, Recipe]:
        """Return the recipes of a dataset, by model."""
        return self.recipes.get(self.recipes_key(dataset), {})

    def recipes_key(self, dataset: str) -> str:
        """Return the key under `recipes` of what a dataset uses: its own, another's or `default`.

        Raises:
            ParamsError: the dataset's entry names recipes that do not exist.
        """
        entry = self.datasets.get(dataset)
        named = entry.recipes if entry else None
        if named and named not in self.recipes:
            raise ParamsError(
                f"datasets.{dataset}.recipes is {named!r}; allowed: {', '.join(self.recipes)}"
            )
        key = named or dataset
        return key if self.recipes.get(key) else "default"

    def recipe(self, dataset: str, model: str) -> Recipe:
        """Return one recipe with its seed filled in.

        Raises:
            ParamsError: the dataset has no recipe of that name.
        """
        recipes = self.recipes_for(dataset)
        if model not in recipes:
            raise ParamsError(
                f"unknown model {model!r} for dataset {dataset!r}; allowed: {', '.join(recipes)}"
                + did_you_mean(model, list(recipes))
            )
        recipe = recipes[model]
        return recipe if recipe.seed is not None else recipe.model_copy(update={"seed": self.seed})

    def space(self, dataset: str, model: str) -> Space:
        """Return the search space of a recipe: its own, or the default one.

        Raises:
            ParamsError: there is no search space.
        """
        for owner in (dataset, self.recipes_key(dataset), "default"):
            if model in self.search.get(owner, {}):
                return self.search[owner][model]
        allowed = [f"{owner}.{name}" for owner, models in self.search.items() for name in models]
        raise ParamsError(
            f"there is no search.{dataset}.{model} in params.yaml, nor search.default.{model}; "
            f"there is: {', '.join(allowed) or 'none'}"
        )


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Read and check params.yaml.

    Raises:
        ParamsError: the file is missing, is not YAML, or holds something that is not allowed; the
            message gives the key, the line and what is allowed.
    """
    try:
        raw = YAML(typ="safe").load(path)
    except FileNotFoundError:
        raise ParamsError(f"{path} is missing in {Path.cwd()}") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise ParamsError(f"{path} must hold keys and values, not {type(raw).__name__}")
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        raise ParamsError(_explain(error, path)) from None


def _explain(error: ValidationError, path: Path) -> str:
    lines = YAML(typ="rt").load(path)
    reasons = [_explain_one(dict(detail), lines, path) for detail in error.errors()]
    return "; ".join(reasons[:3]) + (f"; and {len(reasons) - 3} more" if len(reasons) > 3 else "")


def _explain_one(detail: dict[str, Any], lines: Any, path: Path) -> str:
    keys, line = _place(detail["loc"], lines)
    place = f"{path}:{line}: {'.'.join(map(str, keys)) or 'the file'}"
    if detail["type"] == "extra_forbidden":
        allowed = _fields_at(detail["loc"])
        return (
            f"{place}: unknown key; allowed: {', '.join(allowed)}"
            + did_you_mean(str(keys[-1]), allowed)
        )  # fmt: skip
    if detail["type"] == "missing":
        return f"{place}: is missing"
    if detail["type"] == "value_error":
        return f"{place}: {detail['ctx']['error']}"
    text = detail["msg"].replace("valid tuple", "list")
    return f"{place}: {text[0].lower()}{text[1:]}; received {detail['input']!r}"


def _place(loc: tuple[Any, ...], lines: Any) -> tuple[list[Any], int]:
    """Translate pydantic's location into the keys and the line of the file."""
    keys: list[Any] = []
    line = 0
    for number, part in enumerate(loc):
        if isinstance(loc[number - 1], int) and "layers" in loc[:number] and part in BY_KIND:
            continue  # pydantic's name for the kind of layer
        keys.append(part)
        if isinstance(lines, CommentedMap) and part in lines:
            line, lines = lines.lc.key(part)[0], lines[part]
        elif isinstance(lines, CommentedSeq) and isinstance(part, int) and part < len(lines):
            line, lines = lines.lc.item(part)[0], lines[part]
    return keys, line + 1


def _fields_at(loc: tuple[Any, ...]) -> list[str]:
    """Return the keys that are allowed where pydantic found an unknown one."""
    owner: type[Frozen] = Params
    for number, part in enumerate(loc[:-1]):
        if part in BY_KIND and "layers" in loc[:number]:
            owner = BY_KIND[part]
        elif part in owner.model_fields:
            owner = _model_in(owner.model_fields[part].annotation) or owner
    return list(owner.model_fields)


def _model_in(annotation: Any) -> type[Frozen] | None:
    """Find the model inside an annotation such as `dict[str, dict[str, Recipe]]`."""
    if isinstance(annotation, type) and issubclass(annotation, Frozen):
        return annotation
    found = (_model_in(part) for part in getattr(annotation, "__args__", ()))
    return next((model for model in found if model), None)
