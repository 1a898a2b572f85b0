import subprocess
import sys

import pytest

from pipeline.errors import TrainingError
from pipeline.training.claim import claim, visible

HOLDER = """
import sys
from pathlib import Path
from pipeline.training.claim import claim
print(claim(["0", "1"], Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


def hold(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_no_two_processes_train_on_one_gpu(tmp_path):
    (first, one), (second, two) = hold(tmp_path), hold(tmp_path)
    try:
        assert (one, two) == ("0", "1")
        with pytest.raises(TrainingError, match=r"another training runs on each .* \(0, 1\)") as no:
            claim(["0", "1"], tmp_path)
        assert no.value.retryable
    finally:
        first.kill()
        first.wait()
    assert claim(["0", "1"], tmp_path) == 0, "what dies gives its GPU back"
    second.kill()
    second.wait()


def test_the_names_are_those_of_the_driver(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible(2) == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-5a")
    assert visible(2) == ["3", "GPU-5a"]
