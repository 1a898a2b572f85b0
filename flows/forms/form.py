"""The types of the form: lists, ranges and defaults that the server checks and its UI shows."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, create_model

from pipeline.artifacts.project import PARAMS_FILE
from pipeline.artifacts.record import Frozen
from pipeline.data.datasets import known_names
from pipeline.models.recipes import Recipe
from pipeline.params.params import Params, load_params

Seed = Annotated[int, Field(ge=0, lt=2**31)]
Version = Annotated[int, Field(ge=1)]
# As long as an entry of the ledger takes: pipeline.production.recording.LONGEST_REASON.
Text = Annotated[str, Field(max_length=500)]
SomeText = Annotated[str, Field(max_length=500, pattern=r"\S")]
Person = Annotated[str, Field(max_length=100)]
SomePerson = Annotated[str, Field(max_length=100, pattern=r"\S")]
# The repository's own choices: they fill the lists of the form. What is asked for is checked once
# more against the params.yaml of the revision that runs.
HERE = Path(__file__).parent.parent.parent / PARAMS_FILE
CHOICES = load_params(HERE) if HERE.exists() else Params(dataset="digits", models=("cnn",))


def dataset_names(params: Params) -> list[str]:
    """Return every dataset that may be asked for: the known ones, and those of params.yaml."""
    return [*known_names(), *(name for name in params.datasets if name not in known_names())]


def model_names(params: Params) -> list[str]:
    """Return every model that some dataset has a recipe for."""
    return list(dict.fromkeys(name for recipes in params.recipes.values() for name in recipes))


# Strings with a list of what is allowed: the server checks it, and its form shows it.
Dataset = Annotated[str, Field(json_schema_extra={"enum": dataset_names(CHOICES)})]
Model = Annotated[str, Field(json_schema_extra={"enum": model_names(CHOICES)})]


def partial(model: type[Frozen], name: str) -> type[Frozen]:
    """Return a model of the same fields, none of which must be there; nested models likewise."""
    fields: dict[str, Any] = {}
    for key, field in model.model_fields.items():
        annotation: Any = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Frozen):
            annotation = partial(annotation, f"{annotation.__name__}Changes")
        if key == "layers":
            # Written out as in params.yaml; the recipe's own schema has the last word.
            annotation = list[dict[str, Any] | str]
        elif field.metadata:
            annotation = Annotated[annotation, *field.metadata]
        # A factory is no default that the form would fill in.
        fields[key] = (annotation, Field(default_factory=lambda: None, title=key))
    made: type[Frozen] = create_model(name, __base__=Frozen, __doc__=model.__doc__, **fields)
    return made


RecipeChanges = partial(Recipe, "RecipeChanges")
