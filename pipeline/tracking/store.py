"""The MLflow store: where it is, how it is reached, and what is said when it is not."""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from requests.exceptions import RequestException
from sqlalchemy.exc import SQLAlchemyError

from pipeline.errors import TrackingError

DEFAULT_STORE = "sqlite:///mlflow.db"


def store_uri() -> str:
    """Return `MLFLOW_TRACKING_URI`, or the SQLite file in the working directory."""
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_STORE


@contextmanager
def reaching(what: str) -> Iterator[None]:
    """Turn whatever the store says into one line.

    Raises:
        TrackingError: `what` could not be done.
    """
    try:
        yield
    except (MlflowException, RequestException, SQLAlchemyError, OSError) as error:
        reason = " ".join(str(error).split()).split(" Traceback ")[0]
        raise TrackingError(
            f"cannot {what} in the MLflow store {store_uri()}: {reason[:300]}; "
            "MLFLOW_TRACKING_URI says which store is asked"
        ) from error


def connect() -> MlflowClient:
    """Return a client of the store, which is made ready where it is new.

    Raises:
        TrackingError: the store cannot be reached.
    """
    for noisy in ("alembic", "mlflow"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    uri = store_uri()
    with reaching("connect"), _alone(uri):
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        client = MlflowClient(uri, uri)
        client.search_experiments(max_results=1)
    return client


@contextmanager
def _alone(uri: str) -> Iterator[None]:
    """Let one process at a time meet a SQLite file: of several that create it, all but one fail."""
    if not uri.startswith("sqlite:///"):
        yield
        return
    path = Path(uri.removeprefix("sqlite:///"))
    with Path(f"{path}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
