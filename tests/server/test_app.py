"""The MLflow server of a team: every route, for nobody, an account and the administrator."""

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import requests
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from pipeline.server.routes import API, PAGES, is_served
from tests import routes
from tests.conftest import ROOT

PASSWORD = "a password of tests"
# Says what it will answer, then answers.
SERVE = """
import json, sys, uvicorn
from fastapi.routing import iter_route_contexts
from mlflow.server import app as pages
from pipeline.server.app import create_app_with_accounts
app = create_app_with_accounts()
rules = [(m, r.path) for r in iter_route_contexts(app.routes) for m in r.methods or () if r.path]
rules += [(m, r.rule) for r in pages.url_map.iter_rules() for m in r.methods]
print(json.dumps(rules), flush=True)
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
"""
QUERY = '{ mlflowGetExperiment(input: {experimentId: "0"}) { experiment { name } } }'


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def settings(folder):
    store = f"sqlite:///{folder}/mlflow.db"
    accounts = f"[mlflow]\ndefault_permission = READ\ndatabase_uri = {store}\n"
    (folder / "auth.ini").write_text(f"{accounts}auth_cache_ttl_seconds = 60\n")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "_MLFLOW_"))}
    return {
        **kept,
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "ignore",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_AUTH_ADMIN_USERNAME": "admin",
        "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "k" * 20,
        # What `mlflow server` hands to its workers.
        "_MLFLOW_SGI_NAME": "uvicorn",
        "_MLFLOW_SERVER_FILE_STORE": store,
        "_MLFLOW_SERVER_REGISTRY_STORE": store,
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(folder / "artifacts"),
    }


def session(name=None):
    made = requests.Session()
    made.trust_env = False
    made.auth = (name, PASSWORD) if name else None
    return made


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Serve a run, a model and a version of the administrator's, and two plain accounts."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(port)],
        cwd=folder,
        env=settings(folder),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    rules = json.loads(process.stdout.readline())
    url = f"http://127.0.0.1:{port}"
    wait_for(url, process)
    yield SimpleNamespace(
        url=url,
        api=f"{url}/api/2.0/mlflow",
        artifacts=f"{url}/api/2.0/mlflow-artifacts/artifacts",
        folder=folder,
        rules=[(method, rule) for method, rule in rules if method not in ("HEAD", "OPTIONS")],
        there=fill(url),
        who={name: session(name) for name in ("admin", "ada", None)},
    )
    process.terminate()
    process.wait(30)


def wait_for(url, process):
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        try:
            return requests.get(f"{url}/health", timeout=5).raise_for_status()
        except requests.ConnectionError:
            time.sleep(0.05)
    raise AssertionError("the server does not start")


def fill(url):
    """Return what routes ask for, of things that the administrator has made."""

    def make(path, **body):
        made = session("admin").post(f"{url}/api/2.0/mlflow/{path}", json=body)
        assert made.ok, made.text
        return made.json()

    for name in ("ada", "bob"):
        make("users/create", username=name, password=PASSWORD)
    experiment = make("experiments/create", name="digits")["experiment_id"]
    run = make("runs/create", experiment_id=experiment)["run"]["info"]["run_id"]
    model = make("logged-models", experiment_id=experiment, name="model")["model"]["info"]
    make("registered-models/create", name="digits")
    source = f"mlflow-artifacts:/{experiment}/{run}/artifacts/model"
    make("model-versions/create", name="digits", source=source, run_id=run)
    make("registered-models/alias", name="digits", alias="production", version="1")
    place = f"{experiment}/{run}/artifacts/model/x.txt"
    kept = session("admin").put(f"{url}/api/2.0/mlflow-artifacts/artifacts/{place}", data=b"x")
    assert kept.ok
    names = {"name": "digits", "alias": "production", "version": "1", "username": "bob"}
    ids = {"experiment_id": experiment, "run_id": run, "run_uuid": run, "logged_model_id": run}
    many = {"experiment_ids": experiment, "run_ids": run, "resource_type": "experiment"}
    more = {"resource_pattern": experiment, "resource_id": experiment, "permission": "EDIT"}
    return {
        **names,
        **ids,
        **many,
        **more,
        "model_id": model["model_id"],
        "source": source,
        "metric_key": "loss",
        "path": "model/x.txt",
        "artifact_path": place,
        "artifact_file_path": "MLmodel",
        "role_id": 1,
        "role_permission_id": 1,
        "key": "k",
        "value": "v",
        "max_results": 5,
    }


def refused_by_us(answer):
    return answer.status_code == 404 and "is not served here" in answer.text


def address(server, rule):
    """Return where a rule is, its parts filled in."""
    parts = {**server.there, "path": "nothing.js", "tag_key": "k"}
    return server.url + re.sub(
        r"[<{](?:path:)?(\w+)(?::path)?[>}]", lambda part: str(parts.get(part[1], "x")), rule
    )


def ask(server, name, method, rule):
    """Ask as somebody, for things that are there."""
    url, body = address(server, rule), dict(server.there)
    if (method, routes.plain(rule)) in routes.listed(routes.MLFLOW_MAKE):
        body["name"] = f"by {name} {rule}".replace("/", ".")
    # Lists where a body is read; the same in the query, where some look instead.
    full = {**body, **{key: [body[key]] for key in ("experiment_ids", "run_ids")}, "query": QUERY}
    where = {"experiment_id": body["experiment_id"]}
    full["locations"] = [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": where}]
    sent = {"params": body} if method == "GET" else {"json": full, "params": body}
    if rule == "/graphql":
        sent = {"json": full}
    return server.who[name].request(method, url, timeout=30, **sent)


def walk(server, text):
    """Yield the registered rules that are in a list."""
    wanted = routes.listed(text)
    return [(m, r) for m, r in server.rules if (m, routes.plain(r)) in wanted]


SERVED = {
    "public": routes.MLFLOW_PUBLIC,
    "read": routes.MLFLOW_READ,
    "make": routes.MLFLOW_MAKE,
    "own": routes.MLFLOW_OWN,
    "admin": routes.MLFLOW_ADMIN,
}


def is_refused(rule):
    below = routes.MLFLOW_REFUSED.split()
    return any(rule == root or rule.startswith(f"{root}/") for root in below)


def test_every_route_is_placed(server):
    placed = [routes.listed(text) for text in SERVED.values()]
    found = {(method, routes.plain(rule)) for method, rule in server.rules}
    served = set().union(*placed)
    assert len(served) == sum(map(len, placed))
    new = {pair for pair in found - served if not is_refused(pair[1])}
    assert not new, f"MLflow has routes that tests/routes.py does not know: {sorted(new)}"
    assert not served - found, f"MLflow no longer has {sorted(served - found)}"
    stale = [r for r in routes.MLFLOW_REFUSED.split() if not any(p[1].startswith(r) for p in found)]
    assert not stale


def test_what_the_server_answers_is_what_is_placed(server):
    for method, rule in server.rules:
        served = any((method, routes.plain(rule)) in routes.listed(t) for t in SERVED.values())
        path = address(server, rule).removeprefix(server.url)
        assert is_served(path) is served, rule


def test_what_reaches_the_host_or_the_network_is_not_there_for_anybody(server):
    refused = [
        (method, rule)
        for method, rule in server.rules
        if not any((method, routes.plain(rule)) in routes.listed(t) for t in SERVED.values())
    ]
    assert {r for _, r in refused if "/assistant/" in r}
    for method, rule in refused:
        for name in (None, "ada", "admin"):
            answer = ask(server, name, method, rule)
            assert refused_by_us(answer), (method, rule, name, answer.status_code)


def test_nobody_gets_in_without_an_account(server):
    for method, rule in walk(server, "".join(list(SERVED.values())[1:])):
        assert ask(server, None, method, rule).status_code == 401, (method, rule)
    for method, rule in walk(server, routes.MLFLOW_PUBLIC):
        assert ask(server, None, method, rule).status_code in (200, 404), (method, rule)


def test_a_plain_account_reads(server):
    for method, rule in walk(server, routes.MLFLOW_READ):
        answer = ask(server, "ada", method, rule)
        # Where nothing of the kind is there, it has at least been looked for.
        looked = answer.status_code in (400, 404) and "error_code" in answer.text
        assert not refused_by_us(answer), (method, rule)
        assert answer.status_code == 200 or looked, (method, rule, answer.text)


def test_a_plain_account_changes_nothing_of_others(server):
    for method, rule in walk(server, routes.MLFLOW_OWN + routes.MLFLOW_ADMIN):
        answer = ask(server, "ada", method, rule)
        assert answer.status_code == 403, (method, rule, answer.status_code, answer.text)


def test_a_plain_account_makes_and_changes_its_own(server):
    for method, rule in walk(server, routes.MLFLOW_MAKE):
        answer = ask(server, "ada", method, rule)
        assert answer.status_code == 200, (method, rule, answer.text)
    ada = server.who["ada"]
    made = ada.post(f"{server.api}/experiments/create", json={"name": "ada's"}).json()
    run = ada.post(f"{server.api}/runs/create", json=made).json()["run"]["info"]
    metric = {"run_id": run["run_id"], "key": "loss", "value": 1, "timestamp": 1}
    assert ada.post(f"{server.api}/runs/log-metric", json=metric).status_code == 200
    place = f"{server.artifacts}/{made['experiment_id']}/{run['run_id']}/artifacts/a.txt"
    assert ada.put(place, data=b"a").status_code == 200
    assert ada.get(place).content == b"a"


def test_an_administrator_may_all_that_is_served(server):
    for method, rule in walk(server, "".join(SERVED.values())):
        # Empty, so that nothing is destroyed: who may not is told so before the content is read.
        answer = server.who["admin"].request(method, f"{address(server, rule)}", timeout=30)
        assert answer.status_code not in (401, 403), (method, rule)
        assert not refused_by_us(answer), (method, rule)


def test_no_websocket_is_opened(server):
    with pytest.raises(InvalidStatus), connect(f"{server.url.replace('http', 'ws')}/graphql"):
        pass


@pytest.mark.parametrize("api", ["api", "ajax-api"])
@pytest.mark.parametrize("key", ["artifact_location", "artifactLocation"])
@pytest.mark.parametrize("name", ["ada", "admin"])
def test_an_experiment_has_no_place_of_its_own(server, api, key, name):
    place = server.folder / "own"
    for location in (place.as_uri(), str(place), "mlflow-artifacts:/1", "s3://bucket/x", "own"):
        answer = server.who[name].post(
            f"{server.url}/{api}/2.0/mlflow/experiments/create",
            json={"name": f"at {location}", key: location},
        )
        assert answer.status_code == 400, answer.text
        assert f"artifact_location is {location!r}; allowed: none" in answer.json()["message"]
    assert not place.exists()
    assert "bucket" not in server.who["admin"].get(f"{server.api}/experiments/search").text


def test_no_place_is_chosen_in_another_way(server):
    ada = server.who["ada"]
    made = ada.post(f"{server.api}/experiments/create", json={"name": "moved"}).json()
    body = {**made, "new_name": "moved on", "artifact_location": "file:///tmp/x"}
    assert ada.post(f"{server.api}/experiments/update", json=body).status_code == 200
    tag = {**made, "key": "mlflow.artifactLocation", "value": "file:///tmp/x"}
    assert ada.post(f"{server.api}/experiments/set-experiment-tag", json=tag).status_code == 200
    run = {**made, "artifact_uri": "file:///tmp/x"}
    info = ada.post(f"{server.api}/runs/create", json=run).json()["run"]["info"]
    assert info["artifact_uri"].startswith(f"mlflow-artifacts:/{made['experiment_id']}/")
    model = {**made, "name": "m", "artifact_location": "file:///tmp/x", "artifact_uri": "file:///x"}
    info = ada.post(f"{server.api}/logged-models", json=model).json()["model"]["info"]
    assert info["artifact_uri"].startswith(f"mlflow-artifacts:/{made['experiment_id']}/")
    query = "{ __schema { mutationType { fields { name } } } }"
    found = ada.post(f"{server.url}/graphql", json={"query": query}).json()
    fields = found["data"]["__schema"]["mutationType"]["fields"]
    assert {field["name"] for field in fields} == {
        *("mlflowSearchDatasets", "mlflowSearchRuns", "testMutation")
    }


@pytest.mark.parametrize(
    "source",
    [
        "file:///etc",
        "/etc",
        "http://169.254.169.254/latest",
        "s3://bucket/other",
        "ftp://host/x",
        "mlflow-artifacts:/1/../../etc",
        "mlflow-artifacts:/%2e%2e/%2e%2e/etc",
        "mlflow-artifacts://elsewhere/1",
        "runs:/{other}/model",
        "mlflow-artifacts:/{experiment}/{other}/artifacts/model",
        "dbfs:/x",
    ],
)
def test_a_version_comes_from_a_run_of_this_server(server, source):
    ada = server.who["ada"]
    ada.post(f"{server.api}/registered-models/create", json={"name": "ada's"})
    other, experiment = server.there["run_id"], server.there["experiment_id"]
    body = {"name": "ada's", "source": source.format(other=other, experiment=experiment)}
    for run_id in ({}, {"run_id": "0" * 32}):
        answer = ada.post(f"{server.api}/model-versions/create", json={**body, **run_id})
        assert answer.status_code in (400, 403, 404), answer.text
    found = ada.get(f"{server.api}/model-versions/search", params={"filter": "name = 'ada''s'"})
    assert found.json() == {}


@pytest.mark.parametrize("name", ["ada", "admin"])
@pytest.mark.parametrize(
    "path",
    [
        "../secret.txt",
        "1/../../secret.txt",
        "%2e%2e/secret.txt",
        "..%2fsecret.txt",
        "%252e%252e%252fsecret.txt",
        "1/%2e%2e/%2e%2e/secret.txt",
        "/{folder}/secret.txt",
        "file:%2f%2f{folder}/secret.txt",
        "..%5csecret.txt",
    ],
)
def test_no_path_leads_out_of_the_artifacts(server, path, name):
    (server.folder / "secret.txt").write_text("secret")
    path = path.format(folder=server.folder)
    for method in ("GET", "PUT", "DELETE"):
        for api in ("api", "ajax-api"):
            target = f"/{api}/2.0/mlflow-artifacts/artifacts/{path}"
            status, content = as_it_is(server, name, method, target)
            # An administrator may make a file of an odd name, below the artifacts.
            # A redirect is followed to a path that is here too.
            assert status >= 300 or (name == "admin" and method != "GET"), (method, target, status)
            assert content != b"secret"
    status, content = as_it_is(server, name, "GET", "/api/2.0/mlflow-artifacts/artifacts?path=../")
    assert status >= 400
    assert (server.folder / "secret.txt").read_text() == "secret"
    assert not (server.folder / "artifacts" / "secret.txt").exists()


def as_it_is(server, name, method, target):
    """Send a path that a client library would tidy up."""
    prepared = server.who[name].prepare_request(requests.Request(method, server.url))
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)
    headers = {"Authorization": prepared.headers["Authorization"]}
    connection.request(method, target, body=b"x" if method == "PUT" else None, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


@pytest.mark.parametrize(
    "path",
    [
        "//ajax-api/3.0/mlflow/assistant/config",
        "/api/2.0/mlflow/runs/../webhooks",
        "/api/2.0/mlflow/runs/%2e%2e/webhooks",
        "/ajax-api/3.0/mlflow/assistant%2fconfig",
        "/AJAX-API/3.0/mlflow/assistant/config",
        "/health/../gateway/openai/v1/models",
        "/static-files/%2e%2e/ajax-api/3.0/mlflow/assistant/config",
        "/static/../ajax-api/3.0/mlflow/assistant/config",
    ],
)
def test_no_spelling_gets_past_the_list(server, path):
    for name in ("ada", "admin"):
        status, content = as_it_is(server, name, "GET", path)
        assert status == 404 or (name == "ada" and content == b"Permission denied"), content


def test_pages_open_for_training(server):
    page = server.who["ada"].get(server.url).text
    assert "<head><script>" in page
    assert '"mlflow.workflowType": "machine_learning"' in page
    # The names by which MLflow's pages remember it.
    scripts = re.findall(r'src="(static-files/[^"]+main[^"]+)"', page)
    script = server.who["ada"].get(f"{server.url}/{scripts[0]}").text
    assert 'key:"mlflow.workflowType",version:1' in script
    assert 'key:"mlflow.assistant.fab.autoOpenedOnFirstLoad",version:1' in script
    assert '"machine_learning"' in script


def test_the_list_names_no_part_of_a_word():
    assert is_served("/api/2.0/mlflow/runs/create")
    assert not is_served("/api/2.0/mlflow/runs-elsewhere")
    assert not is_served("/healthy")
    assert not is_served("")
    assert all(root.startswith("/") for root in (*PAGES, *API))
