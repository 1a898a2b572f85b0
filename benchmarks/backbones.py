"""What backbones are worth on photographs: accuracy of a head on their features, and seconds.

    python -m benchmarks.backbones flower_photos.tar.gz efficientnet_lite0:224 mobilenet_v2:160:0.35

The archive holds a folder per class. A fifth of the images are test images. `best` is logistic
regression with its strength from a grid, by 5-fold cross-validation on all the others; `ours` is
`optimizer: lbfgs`, which has a tenth of those for validation; `few` is the same with 20 images per
class, 2 of them for validation, the mean of five draws.
"""

import argparse
import json
import tarfile
import time
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.artifacts.datasets import Labels, Pixels, Vectors
from pipeline.images import read_image, to_array
from pipeline.models.build import build
from pipeline.models.parts import backbone_and_head
from pipeline.models.recipes import Recipe
from pipeline.training.engine import Data
from pipeline.training.features.forward import forward
from pipeline.training.logistic import fit_softmax

PER_CLASS, DRAWS = 20, 5
GRID = {"logisticregression__C": np.logspace(-4, 0, 9)}


def photographs(archive: Path, side: int) -> tuple[Pixels, Labels, tuple[str, ...]]:
    """Return the images of an archive, cropped to squares, their labels and the class names."""
    with tarfile.open(archive) as tar:
        members = sorted((m for m in tar if m.isfile()), key=lambda member: member.name)
        names = [PurePosixPath(member.name).parent.name for member in members]
        classes = tuple(sorted(set(names)))
        images = [
            to_array(read_image(tar.extractfile(member).read()), (side, side, 3), "crop")  # type: ignore[union-attr]
            for member in members
        ]
    return np.stack(images), np.array([classes.index(name) for name in names]), classes


def measure(archive: Path, backbone: str, side: int, alpha: float | None) -> dict[str, Any]:
    """Return a row of the table."""
    x, y, classes = photographs(archive, side)
    layer = {"backbone": backbone, **({"alpha": alpha} if alpha else {})}
    recipe = Recipe.model_validate({"layers": [layer], "optimizer": "lbfgs", "epochs": 200})
    model = build(recipe, (side, side, 3), len(classes), 0)
    network, _ = backbone_and_head(model)
    with TemporaryDirectory() as folder:
        compute = forward(network, Path(folder))
        start, cpu = time.perf_counter(), time.process_time()
        vectors = compute(x)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    rest, test = train_test_split(np.arange(len(y)), test_size=0.2, stratify=y, random_state=0)
    regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))
    start = time.perf_counter()
    best = GridSearchCV(regression, GRID, cv=5, n_jobs=2).fit(vectors[rest], y[rest])
    searched = time.perf_counter() - start
    start = time.perf_counter()
    ours = _ours(recipe, model, vectors, y, classes, rest, test, seed=0)
    fitted = time.perf_counter() - start
    few = [_few(recipe, model, vectors, y, classes, rest, test, seed) for seed in range(DRAWS)]
    return {
        "backbone": backbone + (f" {alpha}" if alpha else ""),
        "pixels": side,
        "best": float(best.score(vectors[test], y[test])),
        "ours": ours,
        "few": float(np.mean(few)),
        "images_per_second": len(x) / seconds,
        "cpu_ms_per_image": 1000 * cpu / len(x),
        "seconds_of_ours": fitted,
        "seconds_of_grid": searched,
    }


def _ours(
    recipe: Recipe,
    model: Any,
    vectors: Vectors,
    y: Labels,
    classes: tuple[str, ...],
    rest: Any,
    test: Any,
    seed: int,
    share: float = 0.1,
) -> float:
    train, val = train_test_split(rest, test_size=share, stratify=y[rest], random_state=seed)
    _, head = backbone_and_head(model)
    data = Data(vectors[train], y[train], vectors[val], y[val], classes)
    fit_softmax(head, recipe, data)
    answers = head.predict(vectors[test], verbose=0).argmax(axis=1)
    return float((answers == y[test]).mean())


def _few(
    recipe: Recipe,
    model: Any,
    vectors: Vectors,
    y: Labels,
    classes: tuple[str, ...],
    rest: Any,
    test: Any,
    seed: int,
) -> float:
    draw = np.random.default_rng(seed)
    some = [draw.choice(rest[y[rest] == n], PER_CLASS, replace=False) for n in range(len(classes))]
    return _ours(recipe, model, vectors, y, classes, np.concatenate(some), test, seed)


def main() -> None:
    """Print a row per backbone and size, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path)
    parser.add_argument("backbone", nargs="+", help="name:pixels, or name:pixels:alpha")
    given = parser.parse_args()
    for one in given.backbone:
        name, side, *alpha = one.split(":")
        row = measure(given.archive, name, int(side), float(alpha[0]) if alpha else None)
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
