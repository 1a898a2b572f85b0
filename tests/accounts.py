"""A real MLflow server with accounts, in a folder of its own."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

SECONDS_TO_START = 120
CONFIG = """
[mlflow]
default_permission = READ
database_uri = sqlite:///{folder}/accounts.db
admin_username = {admin}
admin_password = {password}
auth_cache_ttl_seconds = 60
"""


@contextmanager
def server(folder: Path, admin: str, password: str) -> Iterator[str]:
    """Yield the address of a server with one account; it ends afterwards."""
    folder.mkdir()
    config = folder / "auth.ini"
    config.write_text(CONFIG.format(folder=folder, admin=admin, password=password))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    given = {
        "MLFLOW_AUTH_CONFIG_PATH": str(config),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "only for tests",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    options = {
        "--app-name": "basic-auth",
        "--backend-store-uri": f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination": str(folder / "artifacts"),
        "--host": "127.0.0.1",
        "--port": str(port),
        "--workers": "1",
    }
    command = [str(Path(sys.executable).parent / "mlflow"), "server"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, *(word for option in options.items() for word in option)],
            env={**inherited, **given},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait_for(f"{address}/health", process, folder / "log")
            yield address
        finally:
            process.terminate()
            process.wait()


def _wait_for(page: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while True:
        try:
            with urlopen(page, timeout=5):
                return
        except (URLError, OSError):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)


def client_environment(address: str, name: str, password: str) -> Mapping[str, str]:
    """Return what a client of the server needs."""
    return {
        "MLFLOW_TRACKING_URI": address,
        "MLFLOW_TRACKING_USERNAME": name,
        "MLFLOW_TRACKING_PASSWORD": password,
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    }
