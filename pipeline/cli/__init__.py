"""The `pipeline` command: one subcommand per stage, and what people ask of the results."""

import gc
import os
import signal
import sys
import traceback
from pathlib import Path
from types import TracebackType

import typer

from pipeline.cli.app import app
from pipeline.errors import EXIT_CODE, EXIT_CODE_RETRYABLE, PipelineError
from pipeline.redaction import redact

# In the order in which --help shows them.
from pipeline.cli import stages, flow, registry, guarantee, quantize  # isort: skip
from pipeline.cli import passports, reproduce, results, compare, data  # isort: skip

__all__ = [
    "app",
    "compare",
    "data",
    "flow",
    "guarantee",
    "main",
    "passports",
    "quantize",
    "registry",
    "reproduce",
    "results",
    "stages",
]


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an error that nobody expected, without the passwords that libraries put into theirs."""
    sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))


def main() -> None:
    """Run the command line: an error that the user can mend is one line and exit code 1."""
    _run_the_code_of_the_copy()
    # Imports make a million objects that stay: to look for garbage among them, over and over, takes
    # a fifth of TensorFlow's import.
    gc.set_threshold(200_000)
    # So that a run that is told to end says KILLED in the store.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.excepthook = _show
    try:
        app()
    except PipelineError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        sys.exit(EXIT_CODE_RETRYABLE if error.retryable else EXIT_CODE)
    finally:
        # The process frees all of that by ending; Python would search it again, for two seconds.
        gc.freeze()


def _run_the_code_of_the_copy() -> None:
    """Start again with the code that lies here, where DVC runs a stage in a copy of the project.

    What is installed is the code of the project itself, which goes on while an experiment waits in
    the queue.
    """
    here = Path.cwd()
    code, searched = here / "pipeline" / "cli", os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if "DVC_STAGE" not in os.environ or not code.is_dir() or searched[0] == str(here):
        return
    if not code.samefile(Path(__file__).parent):
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(here), *searched]))
        os.execv(sys.executable, [sys.executable, *sys.argv])
