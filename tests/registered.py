"""A tiny model that was trained on changed code, evaluated and registered; made once for all."""

import subprocess
from functools import cache
from pathlib import Path

import pytest

from pipeline.evaluate import evaluate
from pipeline.register import register
from pipeline.rules import Rules
from pipeline.train import train
from tests.tiny import tiny_plan, tiny_project, tiny_splits, tiny_validation

CODE = {"code.py": b"new = '\xc3\xbc'\n", "more.bin": bytes(range(256))}


@cache
def registered(base: Path) -> Path:
    """Return a folder with the store and what the stages made; `base` is pytest's for all tests."""
    folder = base / "registered"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        tiny_project(folder)
        (folder / "code.py").write_text("old\n")
        identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
        for command in (["add", "-f", "code.py"], ["commit", "-qm", "y"]):
            subprocess.run(["git", *identity, *command], check=True)
        # All that is not code stays out of the diff.
        (folder / ".gitignore").write_text("*\n!code.py\n!more.bin\n")
        for name, content in CODE.items():
            (folder / name).write_bytes(content)
        splits = tiny_splits(folder / "data")
        trained = train(splits, tiny_plan(), folder / "dense", device="cpu")
        models = {"dense": (trained, evaluate(trained, splits, folder / "evaluation" / "dense"))}
        rules = Rules(allow_dirty=True)
        register(models, splits, tiny_validation(), rules, folder / "registered.json")
    return folder
