"""Read compose.yaml: its services, and the order in which they start."""

import re
import signal
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, Literal, cast, get_args

from interpolation import ComposeError, fill, variables_in
from ruamel.yaml import YAML

FILE = Path(__file__).with_name("compose.yaml")
Condition = Literal["service_started", "service_healthy", "service_completed_successfully"]
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6}
_DURATION = re.compile(rf"(\d+(?:\.\d+)?)({'|'.join(sorted(_UNITS, key=len, reverse=True))})")


@dataclass(frozen=True)
class Healthcheck:
    """The health check of a service; times in seconds."""

    test: tuple[str, ...]
    interval: float
    timeout: float
    retries: int
    start_period: float
    start_interval: float


@dataclass(frozen=True)
class Service:
    """What it takes to run one service as a process.

    Attributes:
        depends_on: the services that start before it, and the state they must reach.
        healthcheck: None if the service runs only once.
        ports: the variables of the ports that it listens on, taken from its health check.
        published: whether people may open its first port in a browser.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    depends_on: Mapping[str, Condition]
    healthcheck: Healthcheck | None
    restart: str
    stop_signal: signal.Signals
    stop_grace: float
    ports: tuple[str, ...]
    published: bool


def read(path: Path = FILE) -> dict[str, Any]:
    """Return the file's content, with variables as they are written."""
    return cast(dict[str, Any], YAML(typ="safe").load(path))


def names(raw: dict[str, Any]) -> set[str]:
    """Return all variables of the file: those in texts, and keys that are passed through."""
    passed_on = {
        key
        for service in raw["services"].values()
        for key, value in service.get("environment", {}).items()
        if value is None
    }
    return passed_on | {variable.name for variable in variables_in(raw)}


def seconds(duration: str) -> float:
    """Return a duration such as `1m30s` in seconds.

    Raises:
        ComposeError: it is not a duration.
    """
    parts = _DURATION.findall(duration)
    if not parts or "".join(number + unit for number, unit in parts) != duration:
        raise ComposeError(f"{duration!r} is not a duration; allowed: such as 500ms, 10s or 1m30s")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def services(
    raw: dict[str, Any],
    variables: Mapping[str, str],
    profiles: Collection[str] = (),
    without: Collection[str] = (),
) -> list[Service]:
    """Return the services to run, each after those that it depends on.

    Args:
        raw: the file's content.
        variables: what to fill in.
        profiles: to run as well.
        without: services to leave out; others do not wait for them.

    Raises:
        ComposeError: a variable is missing, a name is unknown, or services wait for each other.
    """
    known = raw["services"]
    for name in without:
        if name not in known:
            raise ComposeError(f"no service {name!r}; allowed: {', '.join(known)}")
    wanted = {
        name: spec
        for name, spec in known.items()
        if name not in without and (not spec.get("profiles") or {*spec["profiles"]} & {*profiles})
    }
    made = {name: _service(name, spec, variables, wanted) for name, spec in wanted.items()}
    try:
        order = TopologicalSorter({s.name: s.depends_on for s in made.values()}).static_order()
        return [made[name] for name in order]
    except CycleError as error:
        raise ComposeError(f"services wait for each other: {' -> '.join(error.args[1])}") from None


def _service(
    name: str, raw: dict[str, Any], variables: Mapping[str, str], wanted: Collection[str]
) -> Service:
    spec = fill(raw, variables)
    depends_on = spec.get("depends_on", {})
    for other, how in depends_on.items():
        if how["condition"] not in get_args(Condition):
            raise ComposeError(
                f"{name} waits for {other} with {how['condition']!r}; "
                f"allowed: {', '.join(get_args(Condition))}"
            )
    ports = {v.name: None for v in variables_in(raw.get("healthcheck")) if v.name.endswith("_PORT")}
    return Service(
        name=name,
        command=tuple(spec["command"]),
        environment=_environment(spec.get("environment", {}), variables),
        depends_on={k: how["condition"] for k, how in depends_on.items() if k in wanted},
        healthcheck=_healthcheck(spec.get("healthcheck", {"disable": True})),
        restart=spec.get("restart", "no"),
        stop_signal=signal.Signals[spec.get("stop_signal", "SIGTERM")],
        stop_grace=seconds(spec.get("stop_grace_period", "10s")),
        ports=tuple(ports),
        published="ports" in spec,
    )


def _environment(spec: dict[str, Any], variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables; a key without a value is passed through if it is set."""
    given = {k: variables.get(k) if v is None else str(v) for k, v in spec.items()}
    return {key: value for key, value in given.items() if value is not None}


def _healthcheck(spec: dict[str, Any]) -> Healthcheck | None:
    if spec.get("disable"):
        return None
    kind, *test = spec["test"]
    if kind not in ("CMD", "CMD-SHELL"):
        raise ComposeError(f"a health check starts with {kind!r}; allowed: CMD, CMD-SHELL")
    return Healthcheck(
        test=tuple(test) if kind == "CMD" else ("sh", "-c", *test),
        interval=seconds(spec.get("interval", "30s")),
        timeout=seconds(spec.get("timeout", "30s")),
        retries=int(spec.get("retries", 3)),
        start_period=seconds(spec.get("start_period", "0s")),
        start_interval=seconds(spec.get("start_interval", "5s")),
    )
