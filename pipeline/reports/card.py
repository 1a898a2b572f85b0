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
from pipeline.reports.wording import in_order, limits, metric_rows, short
from pipeline.tracking.runs import existing_run

TEMPLATE = "card.md.jinja"
PICTURES = {
    "confusion_normalised.png": "Which share of each class is taken for which",
    "reliability.png": "How often it is right, by how sure it is",
    "gradcam.png": "Where it looks",
    "misclassified.png": "The mistakes of which it is most sure",
}
_MOST_CLASSES = 20


@dataclass(frozen=True)
class Card:
    """One card in two forms; the HTML has pictures too, and needs no other file."""

    markdown: str
    html: str


def render(
    passport: Passport,
    version: int,
    confused: Sequence[Confused] | None = None,
    plots: Path | None = None,
) -> Card:
    """Write the card of a version.

    Args:
        passport: of the version.
        version: its number in the registry.
        confused: the most frequent mistakes, where they are known.
        plots: the folder with the pictures of the evaluation; those that are there are shown.
    """
    values = _values(passport, version, confused or ())
    text = fill(TEMPLATE, **values)
    shown = fill(TEMPLATE, **values | _images(passport, plots))
    return Card(text, page(f"{passport.name}, version {version}", shown))


def description(passport: Passport, version: int) -> str:
    """Return the card as MLflow has room for it, without pictures.

    Where it is too long, the metrics of the classes are left out, and the text says so.
    """
    values = _values(passport, version, ())
    whole = fill(TEMPLATE, **values)
    brief = fill(TEMPLATE, **values | {"brief": True})
    if len(whole) <= descriptions.LONGEST:
        return whole
    if len(brief) <= descriptions.LONGEST:
        return brief
    end = f"\n\nThe rest is left out: `pipeline card {passport.name}/{version}` writes all of it.\n"
    kept = brief[: descriptions.LONGEST - len(end)]
    # Not in the middle of a line, where an entity or a table may be cut in two.
    return kept.rpartition("\n")[0].rstrip() + end


def publish(version: Registered, passport: Passport, plots: Path | None) -> None:
    """Show the card in MLflow: as the version's description, and as `card/` on its run.

    Args:
        version: that was registered.
        passport: of the version.
        plots: `plots/` of its evaluation, beside `predictions/`; None where there is none.

    Raises:
        TrackingError: the store cannot be reached, or does not have the run.
    """
    run = existing_run(passport.run.run_id, f"dvc repro --force train@{passport.run.model}")
    card = render(passport, version.version, most_confused(plots), plots)
    with TemporaryDirectory() as folder:
        (Path(folder) / "card.md").write_text(card.markdown)
        (Path(folder) / "card.html").write_text(card.html)
        run.log_artifact(Path(folder), "card")
    descriptions.describe(version, description(passport, version.version))


def most_confused(plots: Path | None) -> tuple[Confused, ...]:
    """Read the most frequent mistakes of an evaluation, where they are beside its pictures."""
    file = plots.parent / "predictions" / "most_confused.csv" if plots else None
    if file is None or not file.exists():
        return ()
    with file.open(newline="") as rows:
        return tuple(
            Confused(r["actual"], r["predicted"], int(r["count"]), float(r["share"]))
            for r in csv.DictReader(rows)
        )


def _values(passport: Passport, version: int, confused: Sequence[Confused]) -> dict[str, Any]:
    """Return what the template asks for; pictures are added where they are wanted."""
    counts = passport.data.counts
    classes = sorted(passport.classes.items(), key=lambda item: item[1]["recall"])
    return {
        "passport": passport,
        "version": version,
        "spec": f"{passport.name}/{version}",
        "counts": ", ".join(f"{number:,} {split}" for split, number in in_order(counts)),
        "class_names": _class_names(passport.data.class_names),
        "validation": _validation(passport),
        "parameters": f"{passport.run.parameters:,}",
        "recipe": _recipe(passport.provenance.recipe),
        "test_images": f"{passport.metrics.get('images', counts.get('test', 0)):,.0f}",
        "metrics": metric_rows(passport.metrics),
        "classes": [_class_row(name, row) for name, row in classes],
        "limits": limits(passport, confused),
        "brief": False,
        "pictures": (),
        "examples": (),
    }


def _class_names(names: Sequence[str]) -> str:
    more = len(names) - _MOST_CLASSES
    shown = ", ".join(names[:_MOST_CLASSES])
    return f"{len(names)}: {shown}{f' and {more} more' if more > 0 else ''}"


def _validation(passport: Passport) -> str:
    results = passport.validation.results
    warned = [row.check for row in results if not row.passed]
    said = "passed" if passport.validation.passed else "did not pass"
    return f"{said}; checks: {len(results)}, warnings: {', '.join(warned) or 'none'}"


def _recipe(recipe: Recipe) -> Markdown:
    """Return a recipe as an indented block, which no sign in it can end."""
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
    """Return pictures and examples as data URIs."""
    files = [(plots / name, caption) for name, caption in PICTURES.items()] if plots else []
    names = passport.data.class_names
    return {
        "pictures": [
            {"caption": caption, "uri": _uri(base64.b64encode(file.read_bytes()).decode())}
            for file, caption in files
            if file.exists()
        ],
        "examples": [
            {
                "uri": _uri(example.png),
                "true": names[example.label],
                "said": names[example.probabilities.index(max(example.probabilities))],
                "sure": f"{max(example.probabilities):.1%}",
            }
            for example in passport.examples
        ],
    }


def _uri(png: str) -> str:
    return f"data:image/png;base64,{png}"
