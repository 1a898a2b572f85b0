"""predict: image files -> the classes that a registered model, or one of this folder, predicts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.artifacts.models import RunInfo, TrainedModel
from pipeline.data.readers.folder import folder_entries
from pipeline.data.readers.listing import is_image
from pipeline.data.readers.reader import as_text
from pipeline.errors import ArtifactError, ImageError
from pipeline.guarantee.selective import NEAREST, UNKNOWN, SelectiveModel, load_selective
from pipeline.images import EXTENSIONS, decode
from pipeline.registry.spec import parse_spec

if TYPE_CHECKING:
    from rich.table import Table

IMAGES_PER_BATCH = 1024


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image: the most probable classes, best first, or an error.

    Attributes:
        unknown: why the first class is no answer, but the nearest class; empty where it is one,
            and None where the model has no guarantee and answers always.
    """

    file: str
    classes: tuple[tuple[str, float], ...] = ()
    error: str = ""
    unknown: str | None = None

    @property
    def answer(self) -> str:
        """The class, or `unknown`."""
        return UNKNOWN if self.unknown else self.classes[0][0]


def predict(images: Sequence[Path], model: str, top: int = 1) -> list[Prediction]:
    """Classify files and folders of images.

    Args:
        images: files, or folders that are searched for images.
        model: `<name>@<alias>`, `<name>/<version>`, or the path of a `models/<dataset>/<model>`.
        top: how many classes to name.

    Returns:
        A row per image; one that cannot be read has an `error`, and the others go on. Where the
        answer is `unknown`, three classes or more are named.

    Raises:
        TrackingError: there is no such model.
        ArtifactError: it has no LiteRT file, or another one than was evaluated.
        ImageError: a path does not exist, or no image is found.
    """
    files = find_images(images)
    trained = find_model(model)
    info = trained.run
    asked = load_selective(trained)
    out: list[Prediction] = []
    for start in range(0, len(files), IMAGES_PER_BATCH):
        out += _predict_batch(files[start : start + IMAGES_PER_BATCH], asked, info, top)
    return out


def find_images(paths: Sequence[Path]) -> list[Path]:
    """Return files as given, and all images inside folders, sorted."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            found = sorted(
                Path(entry.file) for entry in folder_entries(path) if is_image(entry.name)
            )
            if not found:
                raise ImageError(f"{path} holds no image; looked for: {', '.join(EXTENSIONS)}")
            files += found
        elif path.exists():
            files.append(path)
        else:
            raise ImageError(f"{path} does not exist")
    return files


def find_model(model: str) -> TrainedModel:
    """Find a model in this folder or in the registry.

    Raises:
        ParamsError: it names neither.
        TrackingError: there is no such version.
        ArtifactError: the version has no LiteRT file.
    """
    path = Path(model)
    if path.suffix in (".keras", ".tflite"):
        path = path.parent
    if (path / "run.json").exists():
        return TrainedModel(path)
    spec = parse_spec(model, "or the path of a models/<dataset>/<model>")
    from pipeline.registry.model_files import fetch
    from pipeline.registry.versions import find

    version = find(str(spec))
    trained = TrainedModel(fetch(version))
    if not trained.litert.exists():
        raise ArtifactError(
            f"{version.spec} has no {trained.litert.name}: it was registered by an older version "
            "of the pipeline; load it with MLflow, as its model card shows, or train and "
            "register it again: dvc repro --force"
        )
    return trained


def _predict_batch(
    files: list[Path], model: SelectiveModel, info: RunInfo, top: int
) -> list[Prediction]:
    pixels: dict[Path, Any] = {}
    errors: dict[Path, str] = {}
    for file in files:
        try:
            pixels[file] = decode(file.read_bytes(), info.image_shape, info.fit)
        except (ImageError, OSError) as error:
            errors[file] = str(error)
    if not pixels:
        return [Prediction(as_text(str(file)), error=errors[file]) for file in files]
    answers = model.answer(np.stack(list(pixels.values())))
    rows = dict(zip(pixels, zip(answers.probabilities, answers.reasons, strict=True), strict=True))
    out = []
    for file in files:
        name = as_text(str(file))
        if file in errors:
            out.append(Prediction(name, error=errors[file]))
            continue
        row, reason = rows[file]
        ranked = _ranked(row, info.class_names, max(top, NEAREST) if reason else top)
        out.append(Prediction(name, ranked, unknown=reason if model.limits else None))
    return out


def _ranked(row: Any, class_names: tuple[str, ...], top: int) -> tuple[tuple[str, float], ...]:
    order = np.argsort(-row, kind="stable")[:top]
    return tuple((class_names[i], round(float(row[i]), 6)) for i in order)


def as_json(predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
    """Return what `--json` prints; only models with a guarantee have `answer` and `reason`."""
    rows = []
    for row in predictions:
        content: dict[str, Any] = {
            "file": row.file,
            "classes": [{"class_name": n, "probability": p} for n, p in row.classes],
            "error": row.error or None,
        }
        if row.unknown is not None:
            content |= {"answer": row.answer, "reason": row.unknown or None}
        rows.append(content)
    return rows


def render(predictions: Sequence[Prediction]) -> "Table":
    """Return the predictions as a table for people."""
    from rich.table import Table
    from rich.text import Text

    table = Table("image", "class", "probability")
    for row in predictions:
        if row.error:
            table.add_row(Text(row.file), Text(row.error, "red"), "")
        if row.unknown:
            table.add_row(Text(row.file), Text(f"{UNKNOWN}: {row.unknown}", "yellow"), "")
        for number, (name, probability) in enumerate(row.classes):
            first = Text("" if number or row.unknown else row.file)
            shown = Text(f"  {name}", "dim") if row.unknown else Text(name)
            table.add_row(first, shown, f"{probability:.1%}")
    return table


def as_lines(predictions: Sequence[Prediction]) -> list[str]:
    """Return file, class and probability, or the error, separated by tabs: for other programs.

    Where a model with a guarantee does not answer, the class is `unknown`, and two more columns say
    why, and which classes are nearest.
    """
    guaranteed = any(row.unknown is not None for row in predictions)
    lines = ["image\tclass\tprobability" + ("\treason\tnearest" if guaranteed else "")]
    more = "\t\t" if guaranteed else ""
    for row in predictions:
        if row.error:
            lines.append(f"{row.file}\terror: {row.error}\t{more}")
        elif row.unknown:
            nearest = ", ".join(f"{name} {share:.6f}" for name, share in row.classes)
            lines.append(f"{row.file}\t{UNKNOWN}\t\t{row.unknown}\t{nearest}")
        else:
            lines += [f"{row.file}\t{name}\t{share:.6f}{more}" for name, share in row.classes]
    return lines
