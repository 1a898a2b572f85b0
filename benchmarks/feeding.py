"""Images in shards against one array: how long training takes to get them, in turn, three times.

python -m benchmarks.feeding                 # 20,000 made-up images of 96x96: 2 GB of disk
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.growth import SIDE, make
from pipeline.artifacts.datasets import Images, Labels
from pipeline.artifacts.files import read_array, write_array
from pipeline.data.ingest import ingest
from pipeline.data.settings import DatasetPlan, ImageFolder
from pipeline.training.feed import Resident, Streamed


def main() -> None:
    """Measure both ways, and print seconds per way."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=20_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="feeding-") as folder:
        make(Path(folder) / "images", 0, arguments.images, SIDE)
        entry = ImageFolder(source=f"{folder}/images", image_size=(SIDE, SIDE))
        raw = ingest(DatasetPlan(name="made_up", entry=entry), Path(folder) / "raw")
        write_array(Path(folder) / "x.npy", np.asarray(raw.x("train")))
        y = np.array(raw.y("train"))
        forms: dict[str, Callable[[], Images]] = {
            "one array": lambda: read_array(Path(folder) / "x.npy"),
            "shards": lambda: raw.x("train"),
        }
        Resident(np.zeros((8, SIDE, SIDE, 3), np.uint8), y[:8])  # starts TensorFlow
        for _ in range(3):
            for form, images in forms.items():
                print({"form": form, "images": len(y)} | timed(images(), y), flush=True)


def timed(x: Images, y: Labels) -> dict[str, Any]:
    """Return the seconds until all images are on the device and were read once, and by chunks."""
    order = np.random.default_rng(0).permutation(len(x)).astype(np.int32)
    started = time.perf_counter()
    resident = Resident(x, y)
    on_device, _, _ = resident.prefetch(order)()
    int(np.asarray(on_device).max())
    whole = time.perf_counter() - started
    streamed = Streamed(x, y)
    started = time.perf_counter()
    for start in range(0, len(order), streamed.most_images):
        streamed.prefetch(order[start : start + streamed.most_images])()
    return {"resident_s": round(whole, 2), "streamed_s": round(time.perf_counter() - started, 2)}


if __name__ == "__main__":
    main()
