"""The checks of a dataset, as a list: each measures one number, and params.yaml has its limits.

To add a check, add an entry: an `ImageCheck` where a column of the manifest says of each image
whether it is in order, a `TableCheck` where that takes the whole manifest.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pipeline.errors import ParamsError, did_you_mean
from pipeline.validation.limits import Limits
from pipeline.validation.measures import (
    Facts,
    Finding,
    balance,
    classes_in_every_split,
    duplicates,
    group_leakage,
    ignored,
    label_conflict,
    leakage,
    near_duplicates,
    pixel_range,
    row_counts,
    shift,
)

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Check:
    """What is measured, in which unit, and the limits if params.yaml has none.

    Attributes:
        advice: what to do where a dataset does not pass, if that is not obvious.
    """

    name: str
    meaning: str
    unit: Literal["share", "count", "ratio"]
    limits: Limits
    advice: str = field(default="", kw_only=True)


@dataclass(frozen=True)
class ImageCheck(Check):
    """The share of images whose entry in `column` breaks an expectation on columns.

    Attributes:
        expectation: a column expectation of Great Expectations that takes `mostly`.
        arguments: what it takes besides.
    """

    column: str
    expectation: str
    arguments: Callable[[Facts], dict[str, Any]]


@dataclass(frozen=True)
class TableCheck(Check):
    """A number measured on the whole manifest."""

    measure: "Callable[[DataFrame, Facts], Finding]"


CHECKS: tuple[ImageCheck | TableCheck, ...] = (
    ImageCheck(
        "readable",
        "images that cannot be decoded",
        "share",
        Limits(error=0),
        column="error",
        expectation="ExpectColumnValuesToBeInSet",
        arguments=lambda facts: {"value_set": [""]},
    ),
    ImageCheck(
        "dimensions",
        "images whose array has not the shape and channels that the metadata states",
        "share",
        Limits(error=0),
        column="shape",
        expectation="ExpectColumnValuesToBeInSet",
        arguments=lambda facts: {"value_set": ["x".join(map(str, facts.image_shape))]},
    ),
    TableCheck(
        "pixel_range",
        "images that are not uint8, or that use only 0 and 1 of 0 to 255 although not blank",
        "share",
        Limits(warning=0, error=0.01),
        measure=pixel_range,
    ),
    ImageCheck(
        "constant",
        "images of which all pixels are equal",
        "share",
        Limits(warning=0, error=0.05),
        column="std",
        expectation="ExpectColumnValuesToBeBetween",
        arguments=lambda facts: {"min_value": 0, "strict_min": True},
    ),
    ImageCheck(
        "labels",
        "images whose label is not the index of a class name",
        "share",
        Limits(error=0),
        column="label",
        expectation="ExpectColumnValuesToBeBetween",
        arguments=lambda facts: {"min_value": 0, "max_value": len(facts.class_names) - 1},
    ),
    TableCheck(
        "classes_in_every_split",
        "classes that a split has no image of, summed over the splits",
        "count",
        Limits(error=0),
        measure=classes_in_every_split,
    ),
    TableCheck(
        "balance",
        "images of the largest class for each one of the smallest in the same split",
        "ratio",
        Limits(warning=10, error=100),
        measure=balance,
        advice="class_weights: balanced or sampling: balanced in a recipe makes up for it",
    ),
    TableCheck(
        "row_counts",
        "images too many or too few, summed over the splits",
        "count",
        Limits(error=0),
        measure=row_counts,
    ),
    TableCheck(
        "duplicates",
        "images that repeat an earlier one of their split, pixel for pixel",
        "share",
        Limits(warning=0, error=0.05),
        measure=duplicates,
    ),
    TableCheck(
        "label_conflict",
        "images whose pixels occur under another label too",
        "share",
        Limits(warning=0, error=0.01),
        measure=label_conflict,
    ),
    TableCheck(
        "leakage",
        "test images that are in train too, pixel for pixel",
        "share",
        Limits(warning=0, error=0.01),
        measure=leakage,
    ),
    TableCheck(
        "near_duplicates",
        "images that nearly repeat an earlier one, in whichever split: the same picture at another "
        "size, compression or brightness",
        "share",
        Limits(warning=0),
        measure=near_duplicates,
    ),
    TableCheck(
        "group_leakage",
        "images outside of train whose group is in train too",
        "share",
        Limits(warning=0, error=0.01),
        measure=group_leakage,
    ),
    TableCheck(
        "ignored",
        "files of the source that are not read, because they do not end as images do",
        "count",
        Limits(warning=0),
        measure=ignored,
    ),
    TableCheck(
        "shift",
        "how far brightness moved since the last accepted version, of the whole range",
        "share",
        Limits(warning=0.02, error=0.1),
        measure=shift,
    ),
)
BY_NAME = {check.name: check for check in CHECKS}


def check_names(limits: Mapping[str, Limits]) -> None:
    """Refuse limits of a check that does not exist, and those that can never be reached.

    Args:
        limits: the section `validation` of params.yaml.

    Raises:
        ParamsError: a name is unknown, or a share is above 1.
    """
    for name, limit in limits.items():
        if name not in BY_NAME:
            raise ParamsError(
                f"validation.{name}: unknown check; allowed: {', '.join(BY_NAME)}"
                f"{did_you_mean(name, list(BY_NAME))}"
            )
        highest = max(limit.warning or 0, limit.error or 0)
        if BY_NAME[name].unit == "share" and highest > 1:
            raise ParamsError(
                f"validation.{name}: received {highest:g}; allowed: a share from 0 to 1, or null"
            )


def limits_of(check: Check, limits: Mapping[str, Limits]) -> Limits:
    """Return the limits of a check: all of those that params.yaml gives it, or its own."""
    return limits.get(check.name, check.limits)
