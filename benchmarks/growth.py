"""What it costs when a dataset grows by one in a hundred: time of each stage, and what DVC stores.

Generates JPEGs, runs ingest, validate and preprocess, adds 1%, runs them again, and once more, each
stage in its own process in a scratch folder; adds a line per run to `benchmarks/growth.jsonl`. Of
the outputs, what DVC stores and pushes anew are the files of another content than any before.

    python -m benchmarks.growth                # 100,000 of 96x96: 4 GB in all
    python -m benchmarks.growth --files 256    # from larger files
"""

import argparse
import io
import json
import os
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from ruamel.yaml import YAML

from benchmarks.scale import CHUNK, CLASSES, STAGES, run
from pipeline.artifacts.files import dvc_md5
from pipeline.parallel import spread
from pipeline.tracking.describe import environment

RESULTS = Path(__file__).parent / "growth.jsonl"
SIDE, CELLS = 96, 6
RUNS = ("first", "1% more", "1% more again", "nothing new")
# A file that has just been written may still change unseen, so it would be read once more.
SETTLED_SECONDS = 3


def main() -> None:
    """Measure the runs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=100_000, help="default: 100,000")
    parser.add_argument("--files", type=int, default=SIDE, help="side of the files; default: 96")
    parser.add_argument("--scratch", type=Path, help="folder for the files (default: /tmp)")
    arguments = parser.parse_args()
    # As in everyday use: Python keeps what it compiles.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory(prefix="growth-", dir=arguments.scratch) as folder:
        os.environ["DATASET_CACHE"] = f"{folder}/cache"
        for name, count in (("warm", CLASSES * CHUNK), ("growth", arguments.images)):
            (Path(folder) / name).mkdir()
            measure(Path(folder) / name, count, arguments.files, name == "growth")


def measure(root: Path, count: int, side: int, record: bool) -> None:
    """Run the stages on a growing dataset, and add a line for each run to the results."""
    entry = {"source": str(root / "images"), "image_size": [SIDE, SIDE]}
    params = {"dataset": "made_up", "models": ["dense"], "datasets": {"made_up": entry}}
    recipe = {"layers": ["flatten"], "epochs": 1}
    YAML().dump({**params, "recipes": {"default": {"dense": recipe}}}, root / "params.yaml")
    run("resolve", root)
    stored: set[str] = set()
    added = 0
    for name in RUNS if record else RUNS[:1]:
        more = {"first": count, "nothing new": 0}.get(name, count // 100)
        make(root / "images", added, more, side)
        added += more
        time.sleep(SETTLED_SECONDS)
        used = {stage: run(stage, root) for stage in STAGES}
        sizes = outputs(root)
        line = {
            "images": added,
            "files": side,
            "run": name,
            "seconds": {stage: one.seconds for stage, one in used.items()},
            "cpu_seconds": {stage: one.cpu_seconds for stage, one in used.items()},
            "stored_mb": round(sum(sizes.values()) / 1e6, 1),
            "stored_anew_mb": round(
                sum(n for md5, n in sizes.items() if md5 not in stored) / 1e6, 1
            ),
        }
        stored |= set(sizes)
        print(line, flush=True)
        if record:
            line["machine"] = environment().model_dump(exclude={"packages"})
            with RESULTS.open("a") as file:
                file.write(json.dumps(line) + "\n")


def make(folder: Path, start: int, count: int, side: int) -> None:
    """Write JPEGs, by class."""
    for label in range(CLASSES):
        (folder / f"class_{label}").mkdir(parents=True, exist_ok=True)
    pieces = range(start, start + count, CHUNK // CLASSES)
    for files in spread(partial(encode, side=side), pieces, processes=count > CHUNK):
        for name, data in files:
            (folder / name).write_bytes(data)


def encode(start: int, side: int) -> list[tuple[str, bytes]]:
    """Return names and bytes of some images, all different, by turns of each class."""
    rng = np.random.default_rng(start)
    files = []
    for number in range(start, start + CHUNK // CLASSES):
        coarse = rng.integers(0, 160, (CELLS, CELLS, 3), np.uint8)
        pixels = coarse.repeat(side // CELLS, axis=0).repeat(side // CELLS, axis=1)
        pixels += rng.integers(0, 32, pixels.shape, np.uint8)
        label = number % CLASSES
        pixels[:, :, label % 3] += np.uint8(6 * label)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "jpeg", quality=80)
        files.append((f"class_{label}/{number:07}.jpeg", buffer.getvalue()))
    return files


def outputs(root: Path) -> dict[str, int]:
    """Return the size of each file of the outputs of the stages, by its md5."""
    folders = ("data/raw", "data/processed", "reports")
    files = (file for folder in folders for file in (root / folder).rglob("*") if file.is_file())
    return {dvc_md5(file): file.stat().st_size for file in files}


def table() -> str:
    """Return the results as a table in Markdown."""
    lines = [
        "| images | files | run | " + " | ".join(f"{stage}, s" for stage in STAGES)
        + " | together, s | CPU, s | DVC stores anew, MB |",
        "|---" * 3 + "|---" * (len(STAGES) + 3) + "|",
    ]  # fmt: skip
    first: dict[str, float] = {}
    for text in RESULTS.read_text().splitlines():
        row = json.loads(text)
        seconds, cpu = (sum(row[kind].values()) for kind in ("seconds", "cpu_seconds"))
        if row["run"] == RUNS[0]:
            first = {"seconds": seconds, "cpu": cpu}
        cells = [
            f"{row['images']:,}",
            f"{row['files']}x{row['files']}",
            row["run"],
            *(f"{row['seconds'][stage]:.1f}" for stage in STAGES),
            f"{seconds:.1f} ({seconds / first['seconds']:.0%})",
            f"{cpu:.1f} ({cpu / first['cpu']:.0%})",
            f"{row['stored_anew_mb']:,.0f} ({row['stored_anew_mb'] / row['stored_mb']:.1%})",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
