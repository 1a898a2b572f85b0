"""A comparison of two models, before it is shown in any form."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ParamsError
from pipeline.evaluation.metrics import BY_NAME
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.shares import CONFIDENCE
from pipeline.reports.comparing import side_by_side
from pipeline.reports.comparing.changes import Section, differences
from pipeline.reports.comparing.flips import Flips, find_data, show_flips
from pipeline.reports.comparing.pairing import Pairs, pair
from pipeline.reports.comparing.side_by_side import ComparedMetric, Paired
from pipeline.reports.comparing.sides import Side


@dataclass(frozen=True)
class Comparison:
    """Two models of a dataset.

    Attributes:
        metrics: with the values of both models.
        recalls: the recall of each class, the largest difference first; empty where the models
            have different classes.
        compared: the predictions of both for the images of both that neither has seen; None where
            there are none.
        paired: image by image, on these.
        reason: why there is no paired test.
        note: which test images are left out of it; empty: none.
        sections: what differs in recipe, data, code, ….
        flips: the images on which they differ.
    """

    a: Side
    b: Side
    metrics: tuple[ComparedMetric, ...]
    recalls: tuple[ComparedMetric, ...]
    compared: tuple[Predictions, Predictions] | None
    paired: Paired | None
    reason: str
    note: str
    sections: tuple[Section, ...]
    flips: Flips

    @property
    def verdict(self) -> str:
        """The result in one sentence."""
        pairs = self.paired
        if self.a.run_id == self.b.run_id:
            return "A and B are the same model."
        if pairs is None:
            return "A and B cannot be compared image by image."
        ahead = pairs.only_b - pairs.only_a
        if not ahead:
            return f"A and B are right on equally many of the {pairs.images:,} test images."
        better, count = ("B" if ahead > 0 else "A"), abs(ahead)
        images = f"{count:,} more of the {pairs.images:,} test images"
        if pairs.p_value <= 1 - CONFIDENCE:
            return f"{better} is better: right on {images}, more than chance would explain."
        return f"{better} is right on {images}, which may be chance."


def compare_sides(a: Side, b: Side, root: Path, flips: int) -> Comparison:
    """Put two models side by side.

    Args:
        a: the model that is compared with.
        b: the model that is compared.
        root: the folder that may have the images.
        flips: how many images of each kind are shown.

    Raises:
        ParamsError: they are of different datasets.
        ArtifactError: they should have the same test split, but their labels differ.
    """
    if a.dataset != b.dataset:
        raise ParamsError(
            f"{a.spec} is of the dataset {a.dataset}, {b.spec} of {b.dataset}; only models of one "
            "dataset can be compared"
        )
    local = find_data(a.dataset, root)
    found = pair(a, b, local)
    compared, pairs, shown, reason, note = None, None, Flips(reason=str(found)), str(found), ""
    if isinstance(found, Pairs):
        reason, note = "", found.note
        compared = found.predictions(a, b)
        pairs = side_by_side.paired(*compared)
        rows, flipped = (found.rows_a, found.rows_b), side_by_side.flipped(*compared)
        shown = show_flips((a, b), rows, flipped, local, flips)
    same_classes = a.predictions.class_names == b.predictions.class_names
    return Comparison(
        a=a,
        b=b,
        metrics=side_by_side.metrics(a, b),
        recalls=side_by_side.recalls(a.predictions, b.predictions) if same_classes else (),
        compared=compared,
        paired=pairs,
        reason=reason,
        note=note,
        sections=differences(a.origin, b.origin),
        flips=shown,
    )


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Return what `--json` prints."""
    return {
        "a": _side(comparison.a),
        "b": _side(comparison.b),
        "verdict": comparison.verdict,
        "metrics": [
            _metric(row) | {"unit": BY_NAME[row.name].unit, "better": BY_NAME[row.name].better}
            for row in comparison.metrics
        ],
        "recalls": list(map(_metric, comparison.recalls)),
        "paired": asdict(comparison.paired) if comparison.paired else None,
        "not_paired": comparison.reason or None,
        "left_out": comparison.note or None,
        "no_images": comparison.flips.reason or None,
        "changes": {
            section.name: {
                "unknown": list(section.unknown),
                "rows": [asdict(change) for change in section.changes],
            }
            for section in comparison.sections
        },
    }


def _side(side: Side) -> dict[str, Any]:
    names: Iterable[str] = (
        *("spec", "run_id", "dataset", "model", "data_md5", "test_md5"),
        "forgotten",
    )
    return {name: getattr(side, name) for name in names} | {"aliases": list(side.aliases)}


def _metric(metric: ComparedMetric) -> dict[str, Any]:
    return asdict(metric) | {"difference": metric.difference}
