"""The model card (Mitchell et al., 2019) of a registered version, from its passport."""

import base64
import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline.evaluation.measures import Confused
from pipeline.models.recipes import Recipe
from pipeline.registry import descriptions
from pipeline.registry.passport import Passport
from pipeline.registry.versions import Registered
from pipeline.reports.markdown import Markdown, fill, page
from pipeline.reports.wording import (
    forgotten_text,
    guarantee_sentences,
    in_order,
    limits,
    metric_rows,
    short,
)
from pipeline.tracking.runs import existing_run

TEMPLATE = "card.md.jinja"
RISK_COVERAGE = "risk_coverage.png"
FIGURES = {
    RISK_COVERAGE: "How many of the calibration images it answers, and how many of them wrongly",
    "confusion_normalised.png": "How each class is classified, as shares of its images",
    "reliability.png": "Accuracy by confidence",
    "slices.png": "Accuracy on parts of the test split",
    "corruptions.png": "Accuracy on images that are corrupted",
    "gradcam.png": "Where it looks",
    "misclassified.png": "The most confident mistakes",
}
_MOST_CLASSES = 20


@dataclass(frozen=True)
class Card:
    """A card in two formats; the HTML has the figures too, and is one file."""

    markdown: str
    html: str


def render(
    passport: Passport,
    version: int,
    confused: Sequence[Confused] | None = None,
    plots: Path | None = None,
    forgotten: int = 0,
) -> Card:
    """Write the card of a version.

    Args:
        passport: what is known of the version.
        version: its number in the registry.
        confused: the most frequent mistakes, where they are known.
        plots: the folder with the figures of the evaluation; the ones it has are shown.
        forgotten: how many images it was made with that are to be forgotten since.
    """
    values = _values(passport, version, confused or (), forgotten)
    text = fill(TEMPLATE, **values)
    shown = fill(TEMPLATE, **values | _images(passport, plots))
    return Card(text, page(f"{passport.name}, version {version}", shown))


def description(passport: Passport, version: int, forgotten: int = 0) -> str:
    """Return the card without figures, as short as MLflow requires.

    Where it is too long, the metrics by class are left out, and the text says so.
    """
    values = _values(passport, version, (), forgotten)
    whole = fill(TEMPLATE, **values)
    brief = fill(TEMPLATE, **values | {"brief": True})
    if len(whole) <= descriptions.LONGEST:
        return whole
    if len(brief) <= descriptions.LONGEST:
        return brief
    end = f"\n\nThe rest is left out: `pipeline card {passport.name}/{version}` writes all of it.\n"
    kept = brief[: descriptions.LONGEST - len(end)]
    # Cut at a line end: an entity or a table row must stay whole.
    return kept.rpartition("\n")[0].rstrip() + end


def publish(version: Registered, passport: Passport, plots: Path | None) -> None:
    """Show the card in MLflow: as the version's description, and as `card/` on its run.

    Args:
        version: the version that was registered.
        passport: its passport.
        plots: `plots/` of its evaluation, beside `predictions/`; None where there is none.

    Raises:
        TrackingError: the store cannot be reached, or lacks the run.
    """
    run = existing_run(passport.run.run_id, f"dvc repro --force train@{passport.run.model}")
    card = render(passport, version.version, most_confused(plots), plots)
    with TemporaryDirectory() as folder:
        (Path(folder) / "card.md").write_text(card.markdown)
        (Path(folder) / "card.html").write_text(card.html)
        run.log_artifact(Path(folder), "card")
    descriptions.describe(version, description(passport, version.version))


def describe(version: Registered, passport: Passport) -> None:
    """Write the description of a version anew, where something is known of it since.

    Raises:
        TrackingError: the store cannot be reached.
    """
    descriptions.describe(version, description(passport, version.version, version.forgotten))


def most_confused(plots: Path | None) -> tuple[Confused, ...]:
    """Read the most frequent mistakes of an evaluation, where it has them."""
    file = plots.parent / "predictions" / "most_confused.csv" if plots else None
    if file is None or not file.exists():
        return ()
    with file.open(newline="") as rows:
        return tuple(
            Confused(r["actual"], r["predicted"], int(r["count"]), float(r["share"]))
            for r in csv.DictReader(rows)
        )


def _values(
    passport: Passport, version: int, confused: Sequence[Confused], forgotten: int
) -> dict[str, Any]:
    """Return the values of the template, without figures and examples."""
    counts = passport.data.counts
    classes = sorted(passport.classes.items(), key=lambda item: item[1]["recall"])
    return {
        "passport": passport,
        "version": version,
        "spec": f"{passport.name}/{version}",
        "counts": ", ".join(f"{number:,} {split}" for split, number in in_order(counts)),
        "class_names": _class_names(passport.data.class_names),
        "validation": _validation(passport),
        "forgotten": forgotten_text(forgotten),
        "guarantee": guarantee_sentences(passport.guarantee) if passport.guarantee else (),
        "parameters": f"{passport.run.parameters:,}",
        "recipe": _recipe(passport.provenance.recipe),
        "weights": passport.provenance.weights,
        "test_images": f"{passport.metrics.get('images', counts.get('test', 0)):,.0f}",
        "metrics": metric_rows(passport.metrics),
        "classes": [_class_row(name, row) for name, row in classes],
        "limits": limits(passport, confused),
        "brief": False,
        "figures": (),
        "examples": (),
    }


def _class_names(names: Sequence[str]) -> str:
    more = len(names) - _MOST_CLASSES
    shown = ", ".join(names[:_MOST_CLASSES])
    return f"{len(names)}: {shown}{f' and {more} more' if more > 0 else ''}"


def _validation(passport: Passport) -> str:
    results = passport.validation.results
    warned = [row.check for row in results if not row.passed]
    outcome = "passed" if passport.validation.passed else "did not pass"
    return f"{outcome}; checks: {len(results)}, warnings: {', '.join(warned) or 'none'}"


def _recipe(recipe: Recipe) -> Markdown:
    """Return a recipe as an indented block, which nothing in the recipe can end."""
    rows = short(recipe).items()
    return Markdown("\n".join(f"    {key}: {json.dumps(value)}" for key, value in rows))


def _class_row(name: str, row: dict[str, float]) -> dict[str, str]:
    shares = {key: f"{row[key]:.1%}" for key in ("recall", "precision", "f1")}
    interval = ""
    if "recall_low" in row:
        interval = f"{row['recall_low']:.1%} to {row['recall_high']:.1%}"
    if not row["support"]:
        shares, interval = dict.fromkeys(shares, "not measured"), ""
    return {"name": name, "support": f"{row['support']:,.0f}", "interval": interval, **shares}


def _images(passport: Passport, plots: Path | None) -> dict[str, Any]:
    """Return figures and examples as data URIs."""
    files = [(plots / name, caption) for name, caption in FIGURES.items()] if plots else []
    names = passport.data.class_names
    return {
        "figures": [
            {"caption": caption, "uri": _uri(base64.b64encode(file.read_bytes()).decode())}
            for file, caption in files
            if file.exists()
        ],
        "examples": [
            {
                "uri": _uri(example.png),
                "true": names[example.label],
                "predicted": names[example.probabilities.index(max(example.probabilities))],
                "confidence": f"{max(example.probabilities):.1%}",
            }
            for example in passport.examples
        ],
    }


def _uri(png: str) -> str:
    return f"data:image/png;base64,{png}"
