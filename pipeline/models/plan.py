"""The plan of a model: its recipe from params.yaml, checked and complete."""

from pipeline.artifacts.record import Record
from pipeline.models.backbones.weights import Weights
from pipeline.models.recipes import Recipe


class ModelPlan(Record):
    """`plan/<dataset>/models/<model>.json`: the recipe with defaults and seed filled in.

    Attributes:
        weights: those of the backbone, so that others train the model anew; None without one.
    """

    dataset: str
    model: str
    recipe: Recipe
    weights: Weights | None = None
