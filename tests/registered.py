"""A tiny model that was trained on changed code, evaluated and registered; made once for all."""

import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from mlflow.tracking.context import git_context

from pipeline.evaluation.evaluate import evaluate
from pipeline.production import notify
from pipeline.production.rules import Thresholds
from pipeline.training.train import train
from tests.tiny import register, tiny_plan, tiny_project, tiny_splits, tiny_validation

CODE = {"pipeline/code.py": b"new = '\xc3\xbc'\n", "pipeline/more.bin": bytes(range(256))}
SECRET = "hunter2-is-no-password"
CANARY = "canary-of-secrets"
# Where people keep passwords and tokens.
ENVIRONMENT = {
    "MLFLOW_TRACKING_PASSWORD": CANARY,
    "MLFLOW_TRACKING_TOKEN": CANARY,
    "AWS_ACCESS_KEY_ID": f"id-{CANARY}",
    "AWS_SECRET_ACCESS_KEY": CANARY,
    "AWS_SESSION_TOKEN": CANARY,
    "PREFECT_API_AUTH_STRING": f"admin:{CANARY}",
    "PIPELINE_WEBHOOK_URL": f"http://127.0.0.1:9/hooks/{CANARY}?token={CANARY}",
    "SLACK_WEBHOOK_URL": f"http://me:{CANARY}@127.0.0.1:9/services/{CANARY}",
    "DATASET_MIRROR": f"http://me:{CANARY}@127.0.0.1:9",
    "MLFLOW_UI_URL": f"https://me:{CANARY}@mlflow.example",
}
REMOTE = f"https://x-access-token:{CANARY}@git.example/project.git"
# Beside the code: git knows the first and has never seen the others.
OTHERS = {
    "NOTES.md": f"the password is {SECRET}\n".encode(),
    "credentials.json": f'{{"password": "{SECRET}"}}\n'.encode(),
    "notes.txt": f"{SECRET}\n".encode(),
}


@cache
def registered(base: Path) -> Path:
    """Return a folder with the store and what the stages made; `base` is pytest's for all tests."""
    folder = base / "registered"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        patch.setattr(notify, "BACKOFF", 0.01)
        # MLflow looks for the repository of the file that runs: as a rule a command in `.venv/`.
        patch.setattr(sys, "argv", [str(folder / "pipeline" / "code.py")])
        found = property(lambda _: git_context._resolve_git_info())
        patch.setattr(git_context.GitRunContext, "_git_info", found)
        tiny_project(folder)
        (folder / "pipeline").mkdir()
        for name in ("pipeline/code.py", "NOTES.md"):
            (folder / name).write_text("old\n")
        identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
        for command in (
            ["add", "-f", "pipeline", "NOTES.md"],
            ["commit", "-qm", "y"],
            ["remote", "add", "origin", REMOTE],
        ):
            subprocess.run(["git", *identity, *command], check=True)
        # What the stages make is ignored, as it is in a project.
        ignored = ("/data/", "/dense/", "/evaluation/", "/registered.json", "/mlflow.db*")
        (folder / ".gitignore").write_text("\n".join([*ignored, "/mlartifacts/", ""]))
        for name, content in (CODE | OTHERS).items():
            (folder / name).write_bytes(content)
        splits = tiny_splits(folder / "data")
        trained = train(splits, tiny_plan(), folder / "dense", device="cpu")
        models = {"dense": (trained, evaluate(trained, splits, folder / "evaluation" / "dense"))}
        rules = Thresholds(allow_dirty=True)
        register(models, splits, tiny_validation(), rules, folder / "registered.json")
    return folder
