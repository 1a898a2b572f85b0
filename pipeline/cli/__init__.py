"""The `pipeline` command: one subcommand per stage, and what people ask of the results."""

import gc
import signal
import sys
import traceback
from types import TracebackType

import typer

from pipeline.cli.app import app
from pipeline.errors import EXIT_CODE, EXIT_CODE_PASSING, PipelineError
from pipeline.redaction import redact

# In the order in which --help shows them.
from pipeline.cli import stages, flow, registry, passports, reproduce, results, compare  # isort: skip

__all__ = [
    "app",
    "compare",
    "flow",
    "main",
    "passports",
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
        sys.exit(EXIT_CODE_PASSING if error.passing else EXIT_CODE)
    finally:
        # The process frees all of that by ending; Python would search it again, for two seconds.
        gc.freeze()
