"""The MLflow store: where it is, how to connect, and what the error says where that fails."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import mlflow
import requests
import sqlalchemy
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException, RestException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request
from requests.exceptions import ConnectionError as RequestsConnectionError
from requests.exceptions import RequestException, Timeout
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from pipeline.artifacts import project
from pipeline.errors import TrackingError
from pipeline.redaction import redact

DEFAULT_STORE = f"{project.STORE} in the project"
ALLOWED = "sqlite:///FILE, postgresql+psycopg2://…, mysql://…, http://… or https://…"
# The page of the server that names the account of the request.
CURRENT_ACCOUNT = "/api/2.0/mlflow/users/current"
# A store that has not answered by then is not there; after that MLflow's own time limits hold.
SECONDS_TO_ANSWER = 5
IMPATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": str(SECONDS_TO_ANSWER),
}


def store_uri() -> str:
    """Return `MLFLOW_TRACKING_URI`, or the SQLite file of the project.

    Raises:
        TrackingError: this is outside of a project, and the variable is not set.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    file = database_file(uri) if uri else _default_file()
    # Absolute, so that the store stays the same one when the working directory does not.
    return f"sqlite:///{file}" if file else str(uri)


def _default_file() -> Path:
    root = project.find()
    if root is None:
        raise TrackingError(
            f"no MLflow store: {Path.cwd()} is in no project; cd into one, or set "
            f"MLFLOW_TRACKING_URI to {ALLOWED}"
        )
    return project.store_file(root)


def database_file(uri: str) -> Path | None:
    """Return the file of a SQLite store; None for any other."""
    found = uri.startswith("sqlite:///")
    return Path(uri.removeprefix("sqlite:///")).absolute() if found else None


@contextmanager
def reaching(what: str) -> Iterator[None]:
    """Turn any error of the store into one line.

    Raises:
        TrackingError: `what` failed.
    """
    try:
        yield
    except (MlflowException, RequestException, SQLAlchemyError, OSError, ImportError) as error:
        raise TrackingError(
            f"cannot {what} in the MLflow store {store_uri()}: {_cause(error)}; start it, "
            f"or set MLFLOW_TRACKING_URI to {ALLOWED}; unset, it is {DEFAULT_STORE}",
            _is_retryable(error),
        ) from error


def connect() -> MlflowClient:
    """Return a client of the store; a new database is set up first.

    Raises:
        TrackingError: the store does not answer within about 15 s, or is of an unsupported kind.
    """
    for noisy in ("alembic", "mlflow"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    uri = store_uri()
    with reaching("connect"), _alone(database_file(uri), "lock"), impatient():
        if not uri.startswith(("http://", "https://")):
            _check_database(uri)
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        client = MlflowClient(uri, uri)
        client.search_experiments(max_results=1)
    return client


def server_time() -> datetime | None:
    """Return the MLflow server's time, to the second; None where there is no server."""
    uri = store_uri()
    if not uri.startswith(("http://", "https://")):
        return None
    with reaching("ask the time"):
        answer = requests.get(f"{uri}/health", timeout=SECONDS_TO_ANSWER)
    date = answer.headers.get("Date")
    return parsedate_to_datetime(date) if date else None


def account() -> str | None:
    """Return the MLflow account of this process; None where the server has no accounts.

    The server says it about the request, which comes with the password; nobody can type it.

    Raises:
        TrackingError: the server does not answer.
    """
    uri = store_uri()
    if not uri.startswith(("http://", "https://")):
        return None
    with reaching("ask for the account"):
        answer = http_request(get_default_host_creds(uri), CURRENT_ACCOUNT, "GET")
    # A server without accounts has no such page.
    if answer.status_code != requests.codes.ok:
        return None
    with suppress(ValueError, KeyError, TypeError):
        return str(answer.json()["user"]["username"])
    return None


def _check_database(uri: str) -> None:
    """Open a connection and close it: MLflow itself would try again for half an hour."""
    url = sqlalchemy.make_url(uri)
    if url.host:
        ports = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
        address = (url.host, url.port or ports.get(url.get_backend_name(), 5432))
        socket.create_connection(address, timeout=SECONDS_TO_ANSWER).close()
    engine = sqlalchemy.create_engine(url)
    with engine.connect() as connection:
        if url.get_backend_name() == "sqlite":
            # Fails on a file that is not a database, and on one that is read-only.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
    engine.dispose()


@contextmanager
def in_turn() -> Iterator[None]:
    """Let one process at a time change the registry of a project, in all copies of it.

    Raises:
        TrackingError: there is no store, or the folder of its file is read-only.
    """
    file, root = database_file(store_uri()), project.find()
    if file is None and root is not None:
        # A server has other clients too; the ledger decides between them.
        beside = project.store_file(root)
        file = beside if os.access(beside.parent, os.W_OK) else None
    with ExitStack() as held:
        with reaching("register in turn"):
            held.enter_context(_alone(file, "register.lock"))
        yield


@contextmanager
def _alone(file: Path | None, suffix: str) -> Iterator[None]:
    """Hold a lock beside a SQLite file, as only one process at a time can create a database."""
    if file is None:
        yield
        return
    with FileLock(file.with_name(f"{file.name}.{suffix}")):
        yield


@contextmanager
def impatient() -> Iterator[None]:
    """Let MLflow give up soon, unless the user has said how long to wait."""
    unset = {name: value for name, value in IMPATIENCE.items() if name not in os.environ}
    os.environ.update(unset)
    try:
        yield
    finally:
        for name in unset:
            del os.environ[name]


def _is_retryable(error: BaseException | None) -> bool:
    """Return whether the store may answer later: it is away, overloaded or locked."""
    while error is not None:
        if isinstance(error, RestException):
            status = int(error.get_http_status_code())
            return status >= 500 or status == 429
        if isinstance(error, RequestsConnectionError | Timeout | ConnectionError | TimeoutError):
            return True
        if isinstance(error, OperationalError):
            # SQLite's other errors are about the file: missing, read-only, not a database.
            return database_file(store_uri()) is None or "locked" in str(error)
        error = error.__cause__ or error.__context__
    return False


def _cause(error: Exception) -> str:
    """Return the innermost cause of an error, on one line."""
    text = " ".join(str(getattr(error, "orig", None) or error).split()).split(" Traceback ")[0]
    # Redacted before it is cut: half a password would not be recognised as one.
    return redact(text.rpartition("Caused by ")[2])[:300] or type(error).__name__
