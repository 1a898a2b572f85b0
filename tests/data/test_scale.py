"""Many images: shared by processes the stages make the same files, and hold no pixels."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest

from benchmarks.scale import STAGES, prepare, run
from pipeline import parallel as workers
from pipeline.artifacts.datasets import RawDataset
from pipeline.artifacts.files import dvc_md5
from pipeline.data.ingest import ingest
from pipeline.data.preprocess import preprocess
from pipeline.data.settings import DatasetPlan, ImageFolder, Preprocess
from pipeline.data.shards import packing
from pipeline.errors import WorkerError
from pipeline.validation import manifest
from pipeline.validation.validate import validate
from tests import decoding
from tests.conftest import ROOT
from tests.images import encode, files, make_tar, write


def stages(source: Path, output: Path) -> dict[str, bytes]:
    """Run the stages on images and return the files that they made."""
    raw = take(source, output / "raw")
    report = validate(raw, {}, output / "validation", output / "accepted.json")
    preprocess(raw, report, Preprocess(), output / "processed", output / "samples.png")
    made = (file for file in output.rglob("*") if file.is_file())
    return {file.relative_to(output).as_posix(): file.read_bytes() for file in made}


def take(source: Path, output: Path) -> RawDataset:
    entry = ImageFolder(source=str(source), image_size=(12, 10))
    return ingest(DatasetPlan(name="pets", entry=entry), output, progress=False)


def share(monkeypatch, processes: int) -> None:
    """Let processes share any work, of which each gets a few images at a time."""
    monkeypatch.setattr(workers, "cores", lambda: processes)
    monkeypatch.setattr(packing, "MANY_IMAGES", 0)
    monkeypatch.setattr(packing, "TASK_IMAGES", 7)
    monkeypatch.setattr(manifest, "MANY_PIXELS", 0)
    monkeypatch.setattr(manifest, "CHUNK_PIXELS", 5 * 12 * 10 * 3)


def test_the_number_of_processes_changes_no_file(tmp_path, monkeypatch):
    source = write(tmp_path / "pets", files(count=40))
    alone = stages(source, tmp_path / "alone")
    share(monkeypatch, 3)
    assert stages(source, tmp_path / "shared") == alone


@pytest.mark.parametrize("make_source", [write, make_tar])
def test_images_that_cannot_be_decoded_are_told_by_processes_too(
    tmp_path, monkeypatch, make_source
):
    share(monkeypatch, 2)
    bad = {
        "cat/cut.png": encode(size=(30, 30))[:-400],
        "dog/empty.png": b"",
        "dog/text.jpg": b"not an image at all",
    }
    raw = take(make_source(tmp_path / "pets", files(count=9) | bad), tmp_path / "raw")
    table = pd.read_parquet(raw.files).set_index("file")
    assert table["error"]["dog/empty.png"] == "the file is empty"
    assert "truncated" in table["error"]["cat/cut.png"]
    assert "not an image" in table["error"]["dog/text.jpg"]
    assert (table["error"] != "").sum() == len(bad)
    assert list(table.loc["cat/cut.png", ["height", "width", "mode"]]) == [30, 30, "RGB"]


def test_a_process_that_dies_leaves_the_earlier_dataset(tmp_path, monkeypatch):
    source = write(tmp_path / "pets", files(count=9))
    before = dvc_md5(take(source, tmp_path / "raw").path)
    write(source, {"cat/new.png": encode(seed=900)})
    share(monkeypatch, 2)
    monkeypatch.setattr(packing, "decode", decoding.die)
    with pytest.raises(WorkerError, match="died"):
        take(source, tmp_path / "raw")
    assert dvc_md5(tmp_path / "raw") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pets", "raw"]


SLOWLY = """
import signal, sys
from pipeline.data.shards import packing
from pipeline import parallel as workers
from pipeline.cli import main
from tests.decoding import take_time
workers.cores = lambda: 2
packing.MANY_IMAGES, packing.TASK_IMAGES, packing.decode = 0, 1, take_time
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a background job ignores
sys.argv = ["pipeline", "ingest"]
main()
"""


def test_an_interrupt_ends_all_processes_and_leaves_nothing(tmp_path):
    source = write(tmp_path / "pets", files(count=40))
    (tmp_path / "params.yaml").write_text("dataset: pets\nmodels: [dense]\n")
    entry = ImageFolder(source=str(source), image_size=(12, 10))
    DatasetPlan(name="pets", entry=entry).save(tmp_path / "plan" / "pets" / "dataset.json")
    process = subprocess.Popen(
        [sys.executable, "-c", SLOWLY],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("data/raw/.*/.*-shard-*.npy")) and time.monotonic() < deadline:
        time.sleep(0.1)
    started: list[psutil.Process] = []
    while len(started) < 3 and time.monotonic() < deadline:  # two workers, one of Python's own
        time.sleep(0.1)
        started = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, written = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in written
    assert len(started) >= 3
    assert not psutil.wait_procs(started, timeout=10)[1]
    assert list((tmp_path / "data" / "raw").iterdir()) == []


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("layout", ["folder", "tar", "zip"])
def test_memory_grows_by_less_than_the_pixels(tmp_path, layout):
    """A million images stay below 2 GB: 1.5 KB for each, where their pixels have 3 KB."""
    few, many = 40_000, 140_000
    highest: dict[int, dict[str, int]] = {}
    for count in (few, many):
        root = tmp_path / str(count)
        root.mkdir()
        prepare(root, layout, count)
        highest[count] = {stage: run(stage, root).pss_mb for stage in STAGES}
        shutil.rmtree(root)
    for stage in STAGES:
        grown = 1e6 * (highest[many][stage] - highest[few][stage])
        assert grown < 1500 * (many - few), (stage, highest)
