"""What all commands share: the application itself, and how they start.

Every stage is imported where it runs: TensorFlow alone takes 6 s to import, and `--help` must not.
"""

import json
import os
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from pipeline.params.params import Params
    from pipeline.workspace import Workspace

# Also said to `dvc repro`, whose commands are fixed: NO_RESUME=1 dvc repro.
NO_RESUME = "NO_RESUME"
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="From images to a registered classifier. `dvc repro` runs all stages in order.",
)


def import_keras() -> None:
    """Import Keras on its backend, without the messages that the backend prints."""
    from pipeline.artifacts.quiet import quiet_stderr

    with quiet_stderr():
        import keras  # noqa: F401


def choose_tensorflow() -> None:
    """Let Keras run on TensorFlow if it is imported: it loads the models of every backend."""
    os.environ["KERAS_BACKEND"] = "tensorflow"


def import_tensorflow() -> None:
    """Import Keras on TensorFlow."""
    choose_tensorflow()
    import_keras()


def print_json(content: dict[str, Any]) -> None:
    """Print JSON, for machines."""
    print(json.dumps(content, indent=2, ensure_ascii=False))


def params_here() -> "Params":
    """Read params.yaml, here or in a folder above."""
    from pipeline.artifacts import project
    from pipeline.artifacts.project import PARAMS_FILE
    from pipeline.params.params import load_params

    return load_params(project.root() / PARAMS_FILE)


def workspace_here() -> "Workspace":
    """Return the folders of the dataset that params.yaml names."""
    from pipeline.artifacts import project
    from pipeline.workspace import Workspace

    return Workspace(params_here().dataset, project.root())
