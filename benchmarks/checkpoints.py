"""What a checkpoint costs a training: CPU time, which hardly depends on what else the machine does.

Trains recipes on made-up images, so that nothing is downloaded, with a checkpoint after each epoch;
adds a line for each recipe to `benchmarks/checkpoints.jsonl`.

    python -m benchmarks.checkpoints                     # the recipes of `RECIPES`
    python -m benchmarks.checkpoints mnist.cnn --epochs 20
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy import machine
from pipeline.models.build import build, steps_are_small
from pipeline.params.params import load_params
from pipeline.training.checkpoints.files import Slot
from pipeline.training.checkpoints.saving import Checkpoints
from pipeline.training.checkpoints.snapshot import Snapshot
from pipeline.training.device import choose
from pipeline.training.engine import Data, fit
from pipeline.training.state import TrainingState

RESULTS = Path(__file__).parent / "checkpoints.jsonl"
# The shape of the images of each recipe.
RECIPES = {
    "digits.cnn": (8, 8, 1),
    "mnist.cnn": (28, 28, 1),
    "mnist.dense": (28, 28, 1),
    "mnist.fast": (28, 28, 1),
    "cifar10_images.cnn": (32, 32, 3),
}
IMAGES = 1000


class Timed(Checkpoints):
    """Checkpoints after each epoch, however short it is.

    Attributes:
        taken: the seconds of CPU for which the training waited for each.
        written: those of the thread that wrote it.
        bytes: the size of a checkpoint.
    """

    def __init__(self, slot: Slot) -> None:
        super().__init__(slot)
        self.taken: list[float] = []
        self.written: list[float] = []
        self.bytes = 0

    def add(self, state: TrainingState) -> None:
        """Save the state."""
        start = time.thread_time()
        self._save(state)
        self.taken.append(time.thread_time() - start)

    def _write(self, snapshot: Snapshot, facts: dict[str, Any], taken: float) -> None:
        start = time.thread_time()
        super()._write(snapshot, facts, taken)
        self.written.append(time.thread_time() - start)
        self.bytes = self._slot.path.stat().st_size


def main() -> None:
    """Measure the recipes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", default=list(RECIPES), metavar="dataset.model")
    parser.add_argument("--epochs", type=int, default=15)
    given = parser.parse_args()
    for name in given.names:
        line = {"recipe": name, **measure(name, given.epochs), "machine": machine()}
        print(line, flush=True)
        with RESULTS.open("a") as file:
            file.write(json.dumps(line) + "\n")


def measure(name: str, epochs: int) -> dict[str, Any]:
    """Train a recipe; return the size and the cost of its checkpoints."""
    shape = RECIPES[name]
    recipe = load_params().recipe(*name.split("."))
    recipe = recipe.model_copy(update={"epochs": epochs, "then": (), "seed": 0})
    draw = np.random.default_rng(0)
    y = draw.integers(0, 10, IMAGES)
    x = draw.integers(0, 100, (IMAGES, *shape), dtype=np.uint8)
    x += (15 * y).astype(np.uint8)[:, None, None, None]
    data = Data(x, y, x[:100], y[:100], tuple("0123456789"))
    choose("cpu", small_steps=steps_are_small(recipe, shape))
    model = build(recipe, shape, 10, 0)
    with tempfile.TemporaryDirectory() as folder, Timed(Slot("x", Path(folder))) as saving:
        fit(model, recipe, data, seed=0, checkpoints=saving)
    return {
        "parameters": model.count_params(),
        "mb": saving.bytes / 1e6,
        "taken_ms": 1000 * statistics.median(saving.taken),
        "written_ms": 1000 * statistics.median(saving.written),
    }


def table() -> str:
    """Return the results as a table in Markdown."""
    lines = [
        "| recipe | parameters | a checkpoint, MB | the training waits, ms | the thread, ms "
        "| both, of an epoch of a second |",
        "|---" * 6 + "|",
    ]
    for text in RESULTS.read_text().splitlines():
        row = json.loads(text)
        cells = [
            row["recipe"],
            f"{row['parameters']:,}",
            f"{row['mb']:.1f}",
            f"{row['taken_ms']:.1f}",
            f"{row['written_ms']:.1f}",
            f"{(row['taken_ms'] + row['written_ms']) / 1000:.1%}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
