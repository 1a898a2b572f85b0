"""resolve: params.yaml -> one checked plan per dataset and model, every default filled in.

The later stages depend on these small files instead of on keys of params.yaml. So recipes may be
left out or borrowed, a change of a recipe retrains one model, and a typo stops everything.
"""

from pathlib import Path

from pipeline.data.datasets import known_names
from pipeline.data.settings import DatasetPlan
from pipeline.errors import ParamsError, did_you_mean
from pipeline.models.plan import ModelPlan
from pipeline.params.params import Params
from pipeline.validation.checks import check_names


def resolve(params: Params, output: Path) -> DatasetPlan:
    """Write the plan of the dataset and of each model that params.yaml names.

    Args:
        params: the whole of params.yaml.
        output: `plan/<dataset>/`, for `dataset.json` and `models/<model>.json`.

    Raises:
        ParamsError: the dataset, a model or a check is unknown.
    """
    plan = plan_dataset(params)
    check_names(params.validation)
    recipes = {model: params.recipe(plan.name, model) for model in params.models}
    for model, recipe in recipes.items():
        made = ModelPlan(dataset=plan.name, model=model, recipe=recipe, weights=recipe.weights)
        made.save(output / "models" / f"{model}.json")
    plan.save(output / "dataset.json")
    return plan


def plan_dataset(params: Params) -> DatasetPlan:
    """Find the dataset among the entries of params.yaml and the known ones."""
    name, known = params.dataset, known_names()
    doubled = sorted(set(params.datasets) & set(known))
    if doubled:
        raise ParamsError(
            f"datasets.{doubled[0]} has the name of a known dataset: choose another name"
        )
    allowed = [*known, *params.datasets]
    if name not in allowed:
        raise ParamsError(
            f"unknown dataset {name!r}; allowed: {', '.join(allowed)}{did_you_mean(name, allowed)}"
            "; own images need an entry under datasets in params.yaml"
        )
    return DatasetPlan(name=name, entry=params.datasets.get(name))
