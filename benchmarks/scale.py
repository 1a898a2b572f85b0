"""Memory, time and cores in use of ingest, validate and preprocess on many small images.

Generates a dataset of 32x32 colour images, half JPEG and half PNG, runs each stage in its own
process in a scratch folder, and adds a line per stage to `benchmarks/scale.jsonl`. The images have
just been written, so the page cache holds some of them at the start.

    python -m benchmarks.scale                                     # 1,000,000 in a folder: 15 GB
    python -m benchmarks.scale --images 50000 --layout folder tar zip
    python -m benchmarks.scale --table                             # only print the table

Memory is the peak of the process with all its children: `pss` (proportional set size) counts a
shared page once, `rss` counts it in each process. Both include pages of mapped files. CPU seconds
per second is the number of cores in use.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil
from PIL import Image
from rich.console import Console
from rich.table import Table
from ruamel.yaml import YAML

from pipeline.artifacts.project import DATA_STAGES
from pipeline.parallel import spread
from pipeline.tracking.describe import environment

RESULTS = Path(__file__).parent / "scale.jsonl"
STAGES = DATA_STAGES[1:]
CLASSES, SIDE = 10, 32
CHUNK = 1000  # images of one class that are generated at once
SECONDS_BETWEEN_SAMPLES = 0.2
Write = Callable[[str, bytes], None]


def main() -> None:
    """Measure the stages and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=1_000_000, help="default: 1,000,000")
    parser.add_argument("--layout", nargs="*", choices=WRITERS, default=["folder"])
    parser.add_argument("--scratch", type=Path, help="folder for the files (default: /tmp)")
    parser.add_argument("--table", action="store_true", help="only print the table")
    arguments = parser.parse_args()
    if not arguments.table:
        for layout in arguments.layout:
            with tempfile.TemporaryDirectory(prefix="scale-", dir=arguments.scratch) as folder:
                measure(Path(folder), layout, arguments.images)
    Console().print(table())


def measure(root: Path, layout: str, count: int) -> None:
    """Generate the images, run the stages, and add a line for each to the results."""
    prepare(root, layout, count)
    for stage in STAGES:
        line: dict[str, object] = {"images": count, "layout": layout, "stage": stage}
        line |= asdict(run(stage, root))
        line["machine"] = environment().model_dump(exclude={"packages"})
        with RESULTS.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print({key: value for key, value in line.items() if key != "machine"}, flush=True)


def prepare(root: Path, layout: str, count: int) -> None:
    """Write the images, a params.yaml that names them, and the plan."""
    source = root / ("images" if layout == "folder" else f"images.{layout}")
    make(source, layout, count)
    entry = {"source": str(source), "image_size": [SIDE, SIDE]}
    params = {"dataset": "made_up", "models": ["dense"], "datasets": {"made_up": entry}}
    recipe = {"layers": ["flatten"], "epochs": 1}
    YAML().dump({**params, "recipes": {"default": {"dense": recipe}}}, root / "params.yaml")
    run("resolve", root)


def make(source: Path, layout: str, count: int) -> None:
    """Write the images as a folder, `.tar` or `.zip` of class folders."""
    starts = range(0, count, CHUNK)
    with WRITERS[layout](source) as write:
        for start, files in zip(starts, spread(encode, starts, processes=True), strict=True):
            for name, data in files[: count - start]:
                write(name, data)


def encode(start: int) -> list[tuple[str, bytes]]:
    """Return names and bytes of a chunk of images of one class, all different."""
    label = start // CHUNK % CLASSES
    rng = np.random.default_rng(start)
    coarse = rng.integers(0, 160, (CHUNK, 4, 4, 3), np.uint8)
    pixels = coarse.repeat(SIDE // 4, axis=1).repeat(SIDE // 4, axis=2)
    pixels += rng.integers(0, 32, pixels.shape, np.uint8)
    pixels[:, :, :, label % 3] += np.uint8(6 * label)
    files = []
    for number, image in enumerate(pixels, start):
        suffix, options = (
            ("png", {"compress_level": 1}) if number % 2 else ("jpeg", {"quality": 80})
        )
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, suffix, **options)
        files.append((f"class_{label}/{number:07}.{suffix}", buffer.getvalue()))
    return files


@contextmanager
def _folder(source: Path) -> Iterator[Write]:
    for label in range(CLASSES):
        (source / f"class_{label}").mkdir(parents=True)

    def add(name: str, data: bytes) -> None:
        (source / name).write_bytes(data)

    yield add


@contextmanager
def _tar(source: Path) -> Iterator[Write]:
    with tarfile.open(source, "w", format=tarfile.USTAR_FORMAT) as archive:

        def add(name: str, data: bytes) -> None:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
            archive.members.clear()  # type: ignore[attr-defined]  # else it remembers every one

        yield add


@contextmanager
def _zip(source: Path) -> Iterator[Write]:
    with zipfile.ZipFile(source, "w") as archive:
        yield archive.writestr


# Each yields a function that adds a file to the dataset.
WRITERS: dict[str, Callable[[Path], AbstractContextManager[Write]]] = {
    "folder": _folder,
    "tar": _tar,
    "zip": _zip,
}


@dataclass(frozen=True)
class Used:
    """The time of a stage, and its peak memory."""

    seconds: float
    cpu_seconds: float
    cores_used: float
    pss_mb: int
    rss_mb: int


def run(stage: str, root: Path) -> Used:
    """Run a stage in a folder, and measure it."""
    command = [str(Path(sys.executable).parent / "pipeline"), stage]
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL)
    highest = {"pss": 0, "rss": 0}
    watch = threading.Thread(target=_watch, args=[process.pid, highest])
    watch.start()
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    watch.join()
    if process.returncode:
        sys.exit(f"error: {stage} failed with exit code {process.returncode}")
    cpu = used.ru_utime + used.ru_stime
    return Used(
        seconds=round(seconds, 1),
        cpu_seconds=round(cpu, 1),
        cores_used=round(cpu / seconds, 2),
        pss_mb=round(highest["pss"] / 1e6),
        rss_mb=round(highest["rss"] / 1e6),
    )


def _watch(pid: int, highest: dict[str, int]) -> None:
    """Sample the memory of a process and its children until it ends."""
    while True:
        try:
            parent = psutil.Process(pid)
            sizes = [_sizes(each) for each in (parent, *parent.children(recursive=True))]
        except psutil.NoSuchProcess:
            return
        for kind, size in zip(highest, map(sum, zip(*sizes, strict=True)), strict=True):
            highest[kind] = max(highest[kind], size)
        time.sleep(SECONDS_BETWEEN_SAMPLES)


def _sizes(process: psutil.Process) -> tuple[int, int]:
    try:
        memory = process.memory_full_info()
    except (psutil.NoSuchProcess, psutil.AccessDenied):  # a child that has just ended
        return 0, 0
    return memory.pss, memory.rss


def table() -> Table:
    """Return the results as a table."""
    shown = Table(title="10 classes of generated 32x32 colour images")
    columns = ("layout", "stage", "images", "seconds", "cores_used", "pss_mb", "rss_mb")
    for name in columns:
        shown.add_column(name.replace("_", " "), justify="left" if name in columns[:2] else "right")
    for text in RESULTS.read_text().splitlines() if RESULTS.exists() else []:
        line = json.loads(text)
        shown.add_row(*(f"{v:,}" if isinstance(v := line[c], int) else str(v) for c in columns))
    return shown


if __name__ == "__main__":
    main()
