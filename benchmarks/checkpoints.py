"""What a checkpoint costs an epoch of about a second.

Trains recipes on made-up images, so that nothing is downloaded, with a checkpoint after one epoch
in four; adds a line for each recipe to `benchmarks/checkpoints.jsonl`. The time that an epoch and
the next one take with a checkpoint between them is compared with that of the two that follow.

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
from pipeline.training.history import Epoch
from pipeline.training.state import TrainingState

RESULTS = Path(__file__).parent / "checkpoints.jsonl"
# Recipe, shape of its images, and how many make an epoch of about a second on two cores.
RECIPES = {
    "digits.cnn": ((8, 8, 1), 1150),
    "mnist.cnn": ((28, 28, 1), 6000),
    "mnist.dense": ((28, 28, 1), 40_000),
    "cifar10_images.cnn": ((32, 32, 3), 3000),
}


EVERY = 4


class Timed(Checkpoints):
    """Checkpoints after one epoch in four, however short they are.

    Attributes:
        taken: the seconds that the training waited for each.
        written: the seconds of CPU that the thread took for each.
    """

    def __init__(self, slot: Slot) -> None:
        super().__init__(slot)
        self.taken: list[float] = []
        self.written: list[float] = []
        self.bytes = 0

    def add(self, state: TrainingState) -> None:
        """Save the state after one epoch in four."""
        if len(state.epochs) % EVERY == 2:
            start = time.perf_counter()
            self._save(state)
            self.taken.append(time.perf_counter() - start)

    def _write(self, snapshot: Snapshot, facts: dict[str, Any], taken: float) -> None:
        start = time.thread_time()
        super()._write(snapshot, facts, taken)
        self.written.append(time.thread_time() - start)
        self.bytes = self._slot.path.stat().st_size


def main() -> None:
    """Measure the recipes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", default=list(RECIPES), metavar="dataset.model")
    parser.add_argument("--epochs", type=int, default=41)
    given = parser.parse_args()
    for name in given.names:
        line = {"recipe": name, **measure(name, given.epochs), "machine": machine()}
        print(line, flush=True)
        with RESULTS.open("a") as file:
            file.write(json.dumps(line) + "\n")


def measure(name: str, epochs: int) -> dict[str, Any]:
    """Train a recipe; return the seconds of its epochs, and of its checkpoints."""
    shape, images = RECIPES[name]
    recipe = load_params().recipe(*name.split("."))
    recipe = recipe.model_copy(update={"epochs": epochs, "then": (), "seed": 0})
    draw = np.random.default_rng(0)
    y = draw.integers(0, 10, images)
    x = draw.integers(0, 100, (images, *shape), dtype=np.uint8)
    x += (15 * y).astype(np.uint8)[:, None, None, None]
    data = Data(x, y, x[:500], y[:500], tuple("0123456789"))
    choose("cpu", small_steps=steps_are_small(recipe, shape))
    model = build(recipe, shape, 10, 0)
    ends: list[float] = []

    def on_epoch(_: Epoch) -> None:
        ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder, Timed(Slot("x", Path(folder))) as saving:
        fit(model, recipe, data, seed=0, checkpoints=saving, on_epoch=on_epoch)
    # Of the first epoch only the end is known: it compiles. The second one ends with a checkpoint.
    seconds = np.diff(ends)
    pairs = seconds[: len(seconds) // EVERY * EVERY].reshape(-1, 2, 2).sum(axis=2)
    epoch = float(statistics.median(seconds))
    return {
        "parameters": model.count_params(),
        "mb": saving.bytes / 1e6,
        "epoch_seconds": epoch,
        "taken_ms": 1000 * statistics.median(saving.taken),
        "written_cpu_ms": 1000 * statistics.median(saving.written),
        "share": (statistics.median(saving.taken) + statistics.median(saving.written)) / epoch,
        "longer_by": float(statistics.median(pairs[:, 0] - pairs[:, 1])) / epoch,
    }


def table() -> str:
    """Return the results as a table in Markdown."""
    lines = [
        "| recipe | parameters | a checkpoint, MB | an epoch, s | training waits, ms "
        "| CPU of the thread, ms | both, of an epoch | the epochs around it are longer by |",
        "|---" * 8 + "|",
    ]
    for text in RESULTS.read_text().splitlines():
        row = json.loads(text)
        cells = [
            row["recipe"],
            f"{row['parameters']:,}",
            f"{row['mb']:.1f}",
            f"{row['epoch_seconds']:.2f}",
            f"{row['taken_ms']:.1f}",
            f"{row['written_cpu_ms']:.1f}",
            f"{row['share']:.1%}",
            f"{row['longer_by']:.1%}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
