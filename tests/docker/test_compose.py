"""The compose file, the Dockerfile, and how docker/stack.py runs services as processes."""

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import ROOT

# They are scripts beside the files that they read, not a package.
sys.path.insert(0, str(ROOT / "docker"))

import cluster
import compose_file
import processes
from compose_file import Healthcheck, Service
from home import Home, check_ports, client, fix_settings, read_env, variables
from interpolation import ComposeError, fill, interpolate, variables_in
from runner import Runner, base_environment

DOCKER = ROOT / "docker"
RAW = compose_file.read()
SECRET = re.compile("PASSWORD|SECRET|AUTH_STRING|DATABASE_CONNECTION|STORE_URI")
PASSWORDS = {v.name: "secret" for v in variables_in(RAW) if v.operator == ":?"}
SERVICES = RAW["services"]
OWN = [name for name in SERVICES if name != "postgres"]


def test_the_compose_file_follows_the_published_schema():
    done = subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema"),
            *("--builtin-schema", "vendor.compose-spec", compose_file.FILE),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_the_dockerfile_passes_the_linter():
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [hadolint, "--no-color", DOCKER / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_checked_limited_and_restarted(name: str):
    service = SERVICES[name]
    assert service["restart"] in ("unless-stopped", "on-failure:3")
    assert {"cpus", "memory"} <= service["deploy"]["resources"]["limits"].keys()
    assert re.search(r":[^:]+$", service["image"])
    assert "latest" not in service["image"]
    if service["healthcheck"].get("disable"):
        waiting = [s["depends_on"].get(name) for s in SERVICES.values() if "depends_on" in s]
        assert {"condition": "service_completed_successfully"} in waiting
    else:
        assert service["healthcheck"].keys() >= {"test", "interval", "timeout", "retries"}


def test_no_password_has_a_default_or_is_written_down():
    given = {(n, k): v for n, s in SERVICES.items() for k, v in s["environment"].items()}
    secrets = {where: value for where, value in given.items() if SECRET.search(where[1])}
    assert secrets
    for where, value in secrets.items():
        if value is not None:  # handed on
            assert any(v.operator == ":?" for v in variables_in(value)), where
    for variable in variables_in(RAW):
        if re.search("PASSWORD|SECRET|AUTH_STRING", variable.name):
            assert variable.operator == ":?", variable.name
    with pytest.raises(ComposeError, match="POSTGRES_PASSWORD is empty; set it"):
        compose_file.services(RAW, {"POSTGRES_PASSWORD": ""})


@pytest.mark.parametrize("name", SERVICES)
def test_no_password_is_in_a_command_line(name: str):
    commands = [SERVICES[name]["command"], SERVICES[name]["healthcheck"].get("test")]
    assert not [v.name for v in variables_in(commands) if SECRET.search(v.name)]


def test_ports_are_published_on_loopback_only():
    filled = fill(SERVICES, PASSWORDS)
    published = [port for service in filled.values() for port in service.get("ports", [])]
    assert published == ["127.0.0.1:5000:5000", "127.0.0.1:4200:4200"]


@pytest.mark.parametrize("name", OWN)
def test_nothing_is_reported_home(name: str):
    environment = SERVICES[name]["environment"]
    assert environment["DO_NOT_TRACK"] == environment["DVC_NO_ANALYTICS"] == "1"
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"


def example() -> dict[str, str]:
    lines = (DOCKER / ".env.example").read_text().splitlines()
    found = (re.match(r"(?:# )?([A-Z][A-Z0-9_]*)=(.*)$", line) for line in lines)
    return {match[1]: match[2] for match in found if match}


def test_the_example_has_every_variable_with_its_default():
    shown = example()
    assert shown.keys() == compose_file.names(RAW)
    assert {name for name in read_env(DOCKER / ".env.example")} == PASSWORDS.keys()
    assert not any(shown[name] for name in PASSWORDS)
    for variable in variables_in(RAW):
        if variable.operator.endswith("-") and shown[variable.name]:
            assert interpolate(variable.argument, PASSWORDS) == shown[variable.name]


def stages() -> dict[str, list[str]]:
    text = (DOCKER / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    found: dict[str, list[str]] = {"": []}
    for line in lines:
        if line.startswith("FROM "):
            found[line.split()[-1]] = []
        list(found.values())[-1].append(line)
    return found


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_an_image_is_not_root_and_says_what_is_in_it(target: str):
    lines = stages()[target]
    assert lines[0] == f"FROM runtime AS {target}"
    assert "USER 1000:1000" in lines
    assert any('org.opencontainers.image.revision="${GIT_COMMIT}"' in line for line in lines)
    assert any(line.startswith("HEALTHCHECK") for line in stages()["runtime"])


def test_the_dockerfile_pins_its_base_and_holds_no_secret():
    found = stages()
    assert found[""] == ["ARG PYTHON_IMAGE=python:3.11.13-slim-bookworm"]
    for lines in found.values():
        for line in lines:
            assert not (line.startswith(("ARG", "ENV")) and SECRET.search(line)), line
            if line.startswith("FROM "):
                assert line.split()[1] in {"${PYTHON_IMAGE}", *found}


def test_all_that_the_commands_run_is_in_the_image():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    texts = str([[SERVICES[n]["command"], SERVICES[n]["healthcheck"]] for n in OWN])
    for script in set(re.findall(r"docker/[\w.]+", texts + (DOCKER / "Dockerfile").read_text())):
        if script != "docker/dockerfile":
            assert (ROOT / script).exists()
            assert f"!{script}" in ignored


def test_the_gpu_image_has_the_same_versions_and_cuda():
    def locked(kind: str) -> set[str]:
        text = (ROOT / "requirements" / f"{kind}.txt").read_text()
        return set(re.findall(r"^([a-z][\w.\[\]-]*==[^\s;]+)", text, re.MULTILINE))

    def plain(found: set[str]) -> set[str]:
        return {re.sub(r"\[.*\]", "", line) for line in found}

    more = plain(locked("gpu")) - plain(locked("run"))
    assert plain(locked("run")) <= plain(locked("gpu"))
    assert more
    assert all(line.startswith("nvidia-") for line in more)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("$A and ${A}", "a and a"),
        ("${NONE:-b} ${EMPTY:-b} ${EMPTY-b} ${A:-b}", "b b  a"),
        ("${NONE:-x${A}y${NONE:-${A}}}", "xaya"),
        ("${NONE}", ""),
        ("$$A", "$A"),
        ("${A:?must be set}", "a"),
        ("${EMPTY?must be set}", ""),
    ],
)
def test_variables_are_filled_in(text: str, expected: str):
    assert interpolate(text, {"A": "a", "EMPTY": ""}) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${EMPTY:?is empty}", "EMPTY is empty; set it"),
        ("${NONE?}", "NONE is not set; set it"),
        ("${A", "closing brace"),
        ("${A+b}", "is not a variable; allowed"),
        ("5 $", r"as \$\$"),
    ],
)
def test_what_is_no_variable_is_refused(text: str, message: str):
    with pytest.raises(ComposeError, match=message):
        interpolate(text, {"A": "a", "EMPTY": ""})


def one(name: str, *needs: str, **more: Any) -> dict[str, Any]:
    depends_on = {other: {"condition": "service_started"} for other in needs}
    return {name: {"command": ["true"], "depends_on": depends_on, **more}}


def test_services_come_after_those_they_need():
    raw = {"services": one("c", "b", "a") | one("b", "a") | one("a") | one("x", profiles=["p"])}
    assert [s.name for s in compose_file.services(raw, {})] == ["a", "b", "c"]
    assert {s.name for s in compose_file.services(raw, {}, profiles=["p"])} == {*"abcx"}
    left = compose_file.services(raw, {}, without=["a"])
    assert {s.name: dict(s.depends_on) for s in left} == {"b": {}, "c": {"b": "service_started"}}


def test_services_that_wait_for_each_other_are_refused():
    raw = {"services": one("a", "b") | one("b", "a")}
    with pytest.raises(ComposeError, match=r"wait for each other: [ab] -> [ab] -> [ab]"):
        compose_file.services(raw, {})


def test_an_unknown_service_is_refused():
    with pytest.raises(ComposeError, match=r"no service 'redis'; allowed: postgres, migrate"):
        compose_file.services(RAW, PASSWORDS, without=["redis"])


def test_the_order_of_the_real_services():
    names = [s.name for s in compose_file.services(RAW, PASSWORDS, profiles=["gpu"])]
    assert names[:2] == ["postgres", "migrate"]
    assert names.index("prefect") < names.index("deploy") < names.index("worker-gpu")
    assert {"mlflow", "worker-cpu", "worker-control"} <= {*names}


@pytest.mark.parametrize(
    ("text", "expected"), [("500ms", 0.5), ("10s", 10), ("1m30s", 90), ("1h", 3600)]
)
def test_durations(text: str, expected: float):
    assert compose_file.seconds(text) == expected
    with pytest.raises(ComposeError, match="not a duration"):
        compose_file.seconds(text + "!")


Make = Callable[..., Runner]


@pytest.fixture
def make(tmp_path: Path):
    """Return a function that makes a runner of a shell command; what it starts is ended."""
    made: list[Runner] = []
    environment = base_environment(tmp_path, [], {"PATH": "/usr/bin:/bin"})

    def make(script: str, check: str = "", restart: str = "no", **more: Any) -> Runner:
        health = Healthcheck(("sh", "-c", check), 0.05, 0.5, 2, 0.5, 0.01) if check else None
        values: dict[str, Any] = {"stop_signal": signal.SIGTERM, "stop_grace": 1.0, **more}
        service = Service(
            "one",
            ("sh", "-c", script),
            {},
            {},
            health,
            restart,
            ports=(),
            published=False,
            **values,
        )
        runner = Runner(service, environment, tmp_path / "logs" / "one.log", cwd=tmp_path)
        made.append(runner)
        runner.start(time.monotonic())
        return runner

    yield make
    for runner in made:
        runner.stop()


def watch(runner: Runner, until: Callable[[], bool], seconds: float = 8) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, f"it is still {runner.state}"
        runner.tick(time.monotonic())
        time.sleep(0.01)


def test_a_service_is_well_once_its_check_says_so(make: Make, tmp_path: Path):
    runner = make("sleep 60", check=f"test -e {tmp_path / 'well'}")
    assert runner.state == "starting"
    assert not runner.satisfies("service_healthy")
    assert runner.satisfies("service_started")
    (tmp_path / "well").touch()
    watch(runner, lambda: runner.state == "healthy")
    assert runner.ready
    (tmp_path / "well").unlink()
    watch(runner, lambda: runner.state == "unhealthy")


def test_failures_count_only_after_the_start_period(make: Make):
    runner = make("sleep 60", check="false")
    began = time.monotonic()
    watch(runner, lambda: runner.state == "unhealthy")
    assert time.monotonic() - began > 0.5


def test_a_check_that_hangs_is_ended(make: Make):
    runner = make("sleep 60", check="sleep 60")
    watch(runner, lambda: runner.state == "unhealthy")


def test_what_is_killed_is_started_again(make: Make):
    runner = make("sleep 60", restart="unless-stopped")
    assert runner.process
    first = runner.process.pid
    runner.process.kill()
    watch(runner, lambda: runner.restarts == 1 and runner.process is not None)
    assert runner.process.pid != first


def test_pauses_grow_with_every_restart(make: Make):
    runner = make("exit 3", restart="always")
    began = time.monotonic()
    watch(runner, lambda: runner.restarts == 4)
    assert runner.exit_code == 3
    assert time.monotonic() - began > 0.1 + 0.2 + 0.4


def test_a_one_shot_is_tried_so_often_and_no_more(make: Make):
    runner = make("exit 1", restart="on-failure:2")
    watch(runner, lambda: runner.state == "failed")
    assert (runner.restarts, runner.exit_code, runner.ready) == (2, 1, False)
    done = make("exit 0", restart="on-failure:2")
    watch(done, lambda: done.state == "done")
    assert done.satisfies("service_completed_successfully")
    assert done.ready


def test_a_command_that_is_not_there_fails(make: Make, tmp_path: Path):
    runner = make("true")
    broken = Service(**{**vars(runner.service), "command": ("no-such-program",)})
    other = Runner(broken, runner.environment, tmp_path / "other.log")
    other.start(time.monotonic())
    assert (other.state, other.exit_code) == ("failed", 127)
    assert "no-such-program" in other.log.read_text()


def test_a_service_is_asked_to_end_in_its_own_way(make: Make, tmp_path: Path):
    # Not INT: while a shell waits for a child, it has ideas of its own about who should end by it.
    script = "trap 'echo bye >> said; exit 0' USR1; echo hi > said; while :; do sleep 0.05; done"
    runner = make(script, stop_signal=signal.SIGUSR1, stop_grace=5.0)
    watch(runner, (tmp_path / "said").exists)
    runner.stop()
    assert (tmp_path / "said").read_text() == "hi\nbye\n"
    assert runner.exit_code == 0


def test_nothing_of_a_stopped_service_is_left(make: Make, tmp_path: Path):
    # The second child has a session of its own, where a signal to the group would not reach it.
    script = "trap '' TERM; sleep 61 & setsid sleep 62 & wait; wait; sleep 63"
    runner = make(script, stop_grace=0.2)
    watch(runner, lambda: len(processes.marked(tmp_path, "one")) >= 3)
    runner.stop()
    assert processes.marked(tmp_path) == []


def test_a_process_id_that_went_to_another_process_is_not_taken_for_it():
    me = psutil.Process()
    assert processes.find(me.pid, me.create_time()) == me
    assert processes.find(me.pid, me.create_time() - 60) is None


@pytest.fixture
def home(tmp_path: Path) -> Home:
    place = Home(tmp_path / "home")
    place.make()
    return place


def test_passwords_are_made_once_and_are_private(home: Home):
    fix_settings(home, RAW, {}, sqlite=False)
    first = read_env(home.env)
    fix_settings(home, RAW, {"MLFLOW_PORT": "5055", "MLFLOW_TRACKING_PASSWORD": "x"}, sqlite=False)
    second = read_env(home.env)
    assert {**first, "MLFLOW_PORT": "5055"} == second
    assert home.env.stat().st_mode & 0o777 == 0o600
    assert len({first[name] for name in PASSWORDS}) == len(PASSWORDS)
    assert all(len(first[name]) >= 40 for name in PASSWORDS)


def test_lost_passwords_are_said_before_anything_starts(home: Home):
    home.cluster.mkdir()
    with pytest.raises(ComposeError, match="is gone, and with it the passwords"):
        fix_settings(home, RAW, {}, sqlite=False)


def test_a_native_stack_keeps_to_itself(home: Home):
    fix_settings(home, RAW, {"MLFLOW_PORT": "5055"}, sqlite=False)
    values = variables(home, RAW, {"PREFECT_FOLDER": "/elsewhere", "CPU_SLOTS": "3"})
    made = {s.name: s for s in compose_file.services(RAW, values)}
    worker = made["worker-cpu"].environment
    assert worker["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:5055"
    assert worker["PREFECT_HOME"] == str(home.path / "prefect")
    assert worker["PIPELINE_REPOSITORY"] == ""
    assert "DATASET_MIRROR" not in worker
    assert made["deploy"].environment["CPU_SLOTS"] == "3"
    assert client(values)["MLFLOW_UI_URL"] == "http://127.0.0.1:5055"
    texts = [*made["mlflow"].environment.values(), *made["prefect"].environment.values()]
    assert not [t for t in texts if t.startswith(("/artifacts", "/pipeline", "0.0.0.0"))]


def test_a_taken_port_is_said_with_its_variable(home: Home):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        fix_settings(home, RAW, {"MLFLOW_PORT": port}, sqlite=False)
        values = variables(home, RAW)
        service = next(s for s in compose_file.services(RAW, values) if s.name == "mlflow")
        with pytest.raises(ComposeError, match=f"port {port} for mlflow .* set MLFLOW_PORT to"):
            check_ports([service], values)
    with pytest.raises(ComposeError, match="MLFLOW_PORT is 'http'; allowed: a port"):
        check_ports([service], {**values, "MLFLOW_PORT": "http"})


def test_postgres_is_looked_for_where_the_environment_says(tmp_path: Path):
    for tool in cluster.TOOLS:
        (tmp_path / tool).touch()
    assert cluster.binaries({"POSTGRES_BIN": str(tmp_path)}) == tmp_path
    assert cluster.binaries({"POSTGRES_BIN": str(tmp_path / "no")}) is None
