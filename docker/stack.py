"""Run the services of compose.yaml on this machine, without docker.

The same services with the same commands, environment, health checks, order and restart policy;
limits of memory and processors are docker's alone.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import cluster
import compose_file
import processes
import typer
from home import Home, check_ports, client, fix_settings, read_env, variables
from interpolation import ComposeError
from progress import supervisor_of, tail, wait
from rich.console import Console
from rich.table import Table
from supervisor import Supervisor

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="The services of docker/compose.yaml on this machine, without docker.",
)
console = Console(highlight=False)

HomeOption = Annotated[Path, typer.Option(help="The folder for data, logs and passwords.")]
ProfileOption = Annotated[list[str] | None, typer.Option(help="Run its services too, such as gpu.")]
WithoutOption = Annotated[list[str] | None, typer.Option(help="A service to leave out.")]
DEFAULT_HOME = Path(__file__).absolute().parent.parent / ".stack"


@app.command()
def up(
    home: HomeOption = DEFAULT_HOME,
    profile: ProfileOption = None,
    without: WithoutOption = None,
) -> None:
    """Start everything and wait until it is healthy; running services are left alone."""
    place = Home(home.absolute())
    place.make()
    with place.locked():
        _up(place, sorted(profile or []), sorted(without or []))


def _up(home: Home, profiles: list[str], without: list[str]) -> None:
    raw = compose_file.read()
    sqlite = _use_sqlite(home)
    if sqlite:
        without = sorted({*without, cluster.SERVICE})
    state = home.read_state()
    running = supervisor_of(state)
    if running:
        if (state["profiles"], state["without"]) != (profiles, without):
            raise ComposeError(
                f"the stack is running with other services: profiles {state['profiles']}, "
                f"without {state['without']}; stop it first: docker/stack.py down"
            )
    else:
        _sweep(home, state)
        fix_settings(home, raw, os.environ, sqlite=sqlite)
        values = variables(home, raw, os.environ)
        check_ports(compose_file.services(raw, values, profiles, without), values)
        _start_supervisor(home, profiles, without)
    if problem := wait(home, console):
        # A stack that was running before may be in use.
        if not running:
            _down(home)
        raise ComposeError(problem)
    _print_where(home)


def _use_sqlite(home: Home) -> bool:
    """Return whether the databases are SQLite files; a stack never changes that."""
    if "MLFLOW_DATABASE" in read_env(home.env):
        return True
    if home.cluster.exists() or cluster.binaries(os.environ):
        return False
    console.print(
        "[yellow]warning: PostgreSQL is not installed; SQLite is used instead, which is slow "
        "with many runs at once[/]"
    )
    return True


def _sweep(home: Home, state: dict[str, Any]) -> None:
    left = processes.sweep(home.path, state)
    if left:
        console.print(f"stopped what a killed supervisor had left running: {', '.join(left)}")
    home.state.unlink(missing_ok=True)
    for request in home.requests.glob("*"):
        request.unlink()


def _start_supervisor(home: Home, profiles: list[str], without: list[str]) -> None:
    chosen = [f"--profile={p}" for p in profiles] + [f"--without={w}" for w in without]
    with home.log("supervisor").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, __file__, "supervise", "--home", str(home.path), *chosen],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    while not home.state.exists():
        if process.poll() is not None:
            raise ComposeError(f"the supervisor did not start:\n{tail(home, 'supervisor')}")
        time.sleep(0.05)


@app.command(hidden=True)
def supervise(
    home: HomeOption, profile: ProfileOption = None, without: WithoutOption = None
) -> None:
    """Run the background process that `up` starts."""
    sys.exit(Supervisor(Home(home), profile or [], without or []).run())


def _print_where(home: Home) -> None:
    values = variables(home, compose_file.read())
    user = client(values)["MLFLOW_TRACKING_USERNAME"]
    where = "" if home.path == DEFAULT_HOME else f" --home {shlex.quote(str(home.path))}"
    console.print(f"\nMLflow   {values['MLFLOW_UI_URL']}  user {user}")
    console.print(f"Prefect  {values['PREFECT_UI_URL']}  asks for user:password")
    console.print(f"Passwords are in {home.env}. For clients in this shell:", soft_wrap=True)
    console.print(f'eval "$({sys.executable} {__file__} env{where})"', soft_wrap=True)


@app.command()
def down(home: HomeOption = DEFAULT_HOME) -> None:
    """Stop everything, last started first; the data stays."""
    place = Home(home.absolute())
    if not place.path.exists():
        console.print("nothing is running")
        return
    with place.locked():
        _down(place)
    console.print("the stack is down; its data is kept")


def _down(home: Home) -> None:
    state = home.read_state()
    supervisor = supervisor_of(state)
    if supervisor is not None:
        grace = sum(entry["stop_grace"] for entry in state["services"].values())
        with console.status("stopping"):
            processes.end(supervisor, signal.SIGTERM, grace + 30)
    _sweep(home, home.read_state())


@app.command()
def restart(service: str, home: HomeOption = DEFAULT_HOME) -> None:
    """Stop one service, start it again and wait until it is healthy; the others keep running."""
    place = Home(home.absolute())
    state = _running(place)
    if service not in state["services"]:
        raise ComposeError(
            f"no service {service!r} is running; allowed: {', '.join(state['services'])}"
        )
    with place.locked():
        before = state["services"][service]["restarts"]
        (place.requests / service).touch()
        while _running(place)["services"][service]["restarts"] == before:
            time.sleep(0.05)
        if problem := wait(place, console):
            raise ComposeError(problem)


def _running(home: Home) -> dict[str, Any]:
    state = home.read_state()
    if not supervisor_of(state):
        raise ComposeError("the stack is not up; start it: docker/stack.py up")
    return state


@app.command()
def status(home: HomeOption = DEFAULT_HOME) -> None:
    """Show the services; exit code 1 unless all are healthy."""
    state = _running(Home(home.absolute()))
    table = Table("service", "state", "pid", "restarts", "url", box=None)
    for name, entry in state["services"].items():
        pid = str(entry["pid"] or "")
        table.add_row(name, entry["state"], pid, str(entry["restarts"]), entry["url"])
    console.print(table)
    if not all(entry["ready"] for entry in state["services"].values()):
        raise typer.Exit(1)


@app.command()
def logs(
    service: str,
    lines: Annotated[int, typer.Option(min=1)] = 200,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Print the last log lines of a service, or of the `supervisor`."""
    place = Home(home.absolute())
    if not place.log(service).exists():
        there = sorted(p.stem for p in place.log("x").parent.glob("*.log"))
        raise ComposeError(f"no log of {service!r}; allowed: {', '.join(there)}")
    print(tail(place, service, lines))


@app.command()
def env(home: HomeOption = DEFAULT_HOME) -> None:
    """Print what clients need, for `eval "$(python docker/stack.py env)"`."""
    place = Home(home.absolute())
    if not place.env.exists():
        raise ComposeError(f"there is no stack in {place.path}; start it: docker/stack.py up")
    for name, value in client(variables(place, compose_file.read())).items():
        print(f"export {name}={shlex.quote(value)}")


def main() -> None:
    """Run the command line."""
    try:
        app()
    except ComposeError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
