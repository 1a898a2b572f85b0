"""The folder of a native stack: passwords, ports, data, logs and the running services."""

import contextlib
import json
import os
import secrets
import shlex
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from compose_file import Service, names
from filelock import FileLock
from interpolation import ComposeError, variables_in

ADDRESS = "127.0.0.1"
SQLITE = {
    "MLFLOW_DATABASE": "sqlite:///{home}/mlflow.db",
    "PREFECT_DATABASE": "sqlite+aiosqlite:///{home}/prefect.db",
}


@dataclass(frozen=True)
class Home:
    """The paths in the folder."""

    path: Path

    @property
    def env(self) -> Path:
        """Passwords, ports and other variables of .env.example that were set."""
        return self.path / "env"

    @property
    def state(self) -> Path:
        """The running services, as the supervisor writes it."""
        return self.path / "state.json"

    @property
    def cluster(self) -> Path:
        """PostgreSQL's data."""
        return self.path / "postgres"

    @property
    def requests(self) -> Path:
        """Services to restart: one empty file each."""
        return self.path / "requests"

    def log(self, service: str) -> Path:
        """Return where a service's output goes."""
        return self.path / "logs" / f"{service}.log"

    def make(self) -> None:
        """Create the folders, private; under root, PostgreSQL's user may enter the top one."""
        self.path.mkdir(parents=True, exist_ok=True)
        self.path.chmod(0o711 if os.geteuid() == 0 else 0o700)
        for folder in ("logs", "requests", "artifacts"):
            (self.path / folder).mkdir(mode=0o700, exist_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Let one command at a time change the stack; others wait."""
        with FileLock(self.path / "lock"):
            yield

    def read_state(self) -> dict[str, Any]:
        """Return what the supervisor last wrote, or nothing."""
        try:
            return cast(dict[str, Any], json.loads(self.state.read_text()))
        except FileNotFoundError:
            return {}


def write(path: Path, text: str) -> None:
    """Write a private file whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)


def read_env(path: Path) -> dict[str, str]:
    """Return the variables of an env file; lines that start with `#` are comments."""
    if not path.exists():
        return {}
    lines = (line.strip() for line in path.read_text().splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {key: "".join(shlex.split(value)) for key, _, value in pairs}


def ports(raw: dict[str, Any]) -> dict[str, str]:
    """Return the variables that hold ports, with the compose file's defaults."""
    return {v.name: v.argument for v in variables_in(raw) if v.name.endswith("_PORT")}


def fix_settings(
    home: Home, raw: dict[str, Any], environ: Mapping[str, str], *, sqlite: bool
) -> None:
    """Write what must not change later: new passwords, the ports and the databases.

    Raises:
        ComposeError: there are databases, but their passwords are lost.
    """
    known = read_env(home.env)
    if not known and home.cluster.exists():
        raise ComposeError(
            f"{home.env} is gone, and with it the passwords of the databases in {home.cluster}; "
            "put it back, or begin anew in another folder with --home"
        )
    kept = dict(known)
    for name in sorted(_required(raw)):
        kept.setdefault(name, _password(name))
    for name, default in ports(raw).items():
        kept[name] = environ.get(name) or known.get(name) or default
    # A stack that began with one kind of database stays with it.
    if sqlite:
        for name, url in SQLITE.items():
            kept.setdefault(name, url.format(home=home.path))
    if kept != known:
        text = "".join(f"{key}={shlex.quote(value)}\n" for key, value in kept.items())
        write(
            home.env,
            f"# Made by docker/stack.py; docker/.env.example says what may be here.\n{text}",
        )


def _required(raw: dict[str, Any]) -> set[str]:
    """Only passwords have no default."""
    return {v.name for v in variables_in(raw) if v.operator.endswith("?")}


def _password(name: str) -> str:
    return ("admin:" if name.endswith("AUTH_STRING") else "") + secrets.token_hex(24)


def variables(
    home: Home, raw: dict[str, Any], environ: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return what to fill into the compose file so that it runs here, without containers."""
    known = read_env(home.env)
    required = _required(raw)
    given = {k: v for k, v in (environ or {}).items() if k in names(raw) - required}
    chosen = {
        "MLFLOW_ARTIFACTS_DESTINATION": str(home.path / "artifacts"),
        # Empty: the user's own.
        "DATASET_CACHE": "",
        **ports(raw),
        **known,
        **given,
    }
    return {
        **chosen,
        "LISTEN_ADDRESS": ADDRESS,
        "POSTGRES_HOST": ADDRESS,
        "MLFLOW_HOST": ADDRESS,
        "PREFECT_HOST": ADDRESS,
        "MLFLOW_UI_URL": f"http://{ADDRESS}:{chosen['MLFLOW_PORT']}",
        "PREFECT_UI_URL": f"http://{ADDRESS}:{chosen['PREFECT_PORT']}",
        "POSTGRES_DATA": str(home.cluster),
        "MLFLOW_AUTH_CONFIG": str(home.path / "mlflow-auth.ini"),
        "PREFECT_FOLDER": str(home.path / "prefect"),
        "PIPELINE_HOME": str(home.path / "work"),
        # Empty: workers run this very clone.
        "PIPELINE_REPOSITORY": "",
    }


def client(values: Mapping[str, str]) -> dict[str, str]:
    """Return the environment that a client of the stack needs."""
    return {
        "PREFECT_API_URL": f"{values['PREFECT_UI_URL']}/api",
        "PREFECT_API_AUTH_STRING": values["PREFECT_API_AUTH_STRING"],
        "MLFLOW_TRACKING_URI": values["MLFLOW_UI_URL"],
        "MLFLOW_TRACKING_USERNAME": values.get("MLFLOW_TRACKING_USERNAME") or "admin",
        "MLFLOW_TRACKING_PASSWORD": values["MLFLOW_TRACKING_PASSWORD"],
        "MLFLOW_UI_URL": values["MLFLOW_UI_URL"],
    }


def check_ports(services: Iterable[Service], values: Mapping[str, str]) -> None:
    """Check that every port is free.

    Raises:
        ComposeError: one is in use, or is not a port number.
    """
    for service in services:
        for name in service.ports:
            text = values[name]
            if not text.isdigit() or not 0 < int(text) < 65536:
                raise ComposeError(f"{name} is {text!r}; allowed: a port from 1 to 65535")
            with socket.socket() as probe:
                # As servers do; without it a port counts as in use for a minute after its last use.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((ADDRESS, int(text)))
                except OSError as error:
                    raise ComposeError(
                        f"port {text} for {service.name} is already in use ({error.strerror}); "
                        f"stop what uses it, or set {name} to another port"
                    ) from None
