"""The README's commands run as they stand there."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from tests.conftest import ROOT, runner

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^ *```bash\n(.*?)^ *```", README, re.DOTALL | re.MULTILINE)
COMMANDS = [line.split("  #")[0].strip() for block in BLOCKS for line in block.splitlines()]
# The suite itself, a server, another dataset's download, and a dataset that is made up below.
ACTIVATE = "source .venv/bin/activate"
ELSEWHERE = {"make test", "make ui", "make stack", "dataset=fashion_mnist", "dataset=flowers"}
# What a gate says depends on the models: tests/production/test_promote.py.
ELSEWHERE |= {"pipeline promote", "pipeline rollback"}
# tests/reports/test_images.py and tests/production/test_forget.py.
ELSEWHERE |= {"pipeline trace", "pipeline forget"}
# A model is trained once more in tests/flows/test_reproduce.py.
ELSEWHERE |= {"pipeline reproduce"}
# tests/production/test_guarantee.py.
ELSEWHERE |= {"pipeline guarantee"}


@pytest.fixture
def clone(workspace_copy: Path) -> Path:
    """Give the clone this environment as its .venv, set up."""
    venv = workspace_copy / ".venv"
    venv.mkdir()
    for part in ("bin", "lib", "pyvenv.cfg"):
        (venv / part).symlink_to(Path(sys.executable).parent.parent / part)
    for stamp in ("run.stamp", "dev.stamp"):
        (venv / stamp).touch()
    return workspace_copy


def test_the_readme_has_the_commands_that_this_file_leaves_out():
    for words in ELSEWHERE:
        assert any(words in command for command in COMMANDS), words


def as_a_user(clone, *commands):
    """Run command lines in one shell that knows nothing of this environment."""
    plain = os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if "venv" not in p)
    script = "\n".join(["set -e", *commands])
    return runner(clone)("bash", "-c", script, PATH=plain)


@pytest.mark.long
def test_its_commands_run(clone):
    Image.new("L", (20, 30), 128).save(clone / "image.png")
    commands = [c for c in COMMANDS if not any(words in c for words in ELSEWHERE)]
    assert len(commands) >= 6
    as_a_user(clone, *commands)


@pytest.mark.long
@pytest.mark.mirror
@pytest.mark.skipif("DATASET_MIRROR" not in os.environ, reason="DATASET_MIRROR is not set")
def test_another_dataset_is_one_word(clone):
    command = next(c for c in COMMANDS if "dataset=fashion_mnist" in c)
    short = " ".join(f"-S recipes.fashion_mnist.{model}.epochs=1" for model in ("dense", "cnn"))
    as_a_user(clone, ACTIVATE, f"{command} {short}")
    assert (clone / "reports/fashion_mnist/registered.json").exists()


@pytest.mark.long
def test_own_images_in_five_minutes(clone):
    for seed, name in enumerate(("rose", "tulip")):
        folder = clone / "data/own/flowers" / name
        folder.mkdir(parents=True)
        rng = np.random.default_rng(seed)
        for number in range(20):
            pixels = rng.integers(0, 128, (40, 50, 3), np.uint8)
            pixels[..., seed] += 100
            Image.fromarray(pixels).save(folder / f"{number}.png")
    entry = next(b for b in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL) if "flowers" in b)
    yaml, params = YAML(), clone / "params.yaml"
    content = yaml.load(params)
    content["datasets"].update(YAML(typ="safe").load(entry)["datasets"])
    yaml.dump(content, params)
    command = next(c for c in COMMANDS if "dataset=flowers" in c)
    predict = "pipeline predict data/own/flowers/rose/1.png --model flowers@production"
    digits = clone / "models/digits/cnn/model.keras"
    digits.unlink()
    checkout = f"dvc checkout {digits}"  # DVC takes out only what it has put there itself
    assert "rose" in as_a_user(clone, ACTIVATE, checkout, command, predict).stdout
    assert digits.exists()
    assert (clone / "reports/flowers/validation/data_docs/index.html").exists()


def test_the_ui_opens_on_the_same_store(clone):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["make", "ui", f"PORT={port}"]
    with subprocess.Popen(
        command, cwd=clone, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, process_group=0
    ) as process:
        try:
            assert "MLflow" in answer(f"http://127.0.0.1:{port}/", process)
        finally:
            os.killpg(process.pid, signal.SIGTERM)  # make and the servers below it


def test_a_port_that_is_taken_is_named_with_another_one(clone):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = runner(clone)("make", "ui", f"PORT={port}", check=False)
    assert done.returncode != 0
    said = done.stderr.splitlines()[0]
    assert said.startswith(f"error: port {port} cannot be used: Address already in use")
    assert f"make ui PORT={port + 1}, " in said


def answer(address: str, process: subprocess.Popen[bytes]) -> str:
    """Return the page once the server is up."""
    for _ in range(240):
        assert process.poll() is None
        try:
            with urllib.request.urlopen(address, timeout=5) as page:
                return str(page.read().decode())
        except OSError:
            time.sleep(0.25)
    pytest.fail("the server did not start")
