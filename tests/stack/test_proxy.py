"""The proxy of docs/team.md before the real servers: who gets in, and who is said to have asked."""

import base64
import json
import re
import shutil
import socket
import ssl
import subprocess
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from tests.stack.conftest import Stack
from tests.stack.running import until

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
ROOT = Path(__file__).parent.parent.parent
CONFIG = ROOT / "docker" / "proxy" / "nginx.conf"
pytestmark = [
    pytest.mark.stack,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not (NGINX and shutil.which("htpasswd")),
        reason="nginx is not installed: apt-get install nginx apache2-utils",
    ),
]
ADA = ("ada", "ada's own password")
MAIN = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/temp;
    include {folder}/site.conf;
}}
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def encoded(text):
    return base64.b64encode(text.encode()).decode()


def commands():
    """Return the lines of the guide that make the two files with passwords, with its umask."""
    guide = (ROOT / "docs" / "team.md").read_text()
    return re.findall(
        r"^(umask .*|htpasswd .*|printf 'proxy_set_header.*?(?:\\\n.*)?)$", guide, re.M
    )


@pytest.fixture(scope="module")
def proxy(stack: Stack, tmp_path_factory):
    """Run nginx with the example's configuration, in a folder and on ports of its own."""
    env = stack.env
    folder, https, http = tmp_path_factory.mktemp("nginx"), free_port(), free_port()
    (folder / "tls").mkdir()
    for name in ("prefect", "mlflow"):
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-days", "2"),
                *("-subj", f"/CN={name}.example.org"),
                *("-addext", f"subjectAltName=DNS:{name}.example.org"),
                *("-keyout", folder / f"tls/{name}.key", "-out", folder / f"tls/{name}.pem"),
            ],
            check=True,
            capture_output=True,
        )
    making = "\n".join(commands()).replace("/etc/nginx/", f"{folder}/")
    given = {"PREFECT_API_AUTH_STRING": env["PREFECT_API_AUTH_STRING"], "PATH": "/usr/bin:/bin"}
    typed = f"{ADA[1]}\n".encode()
    making = making.replace("htpasswd -B", "htpasswd -i -B")  # the password from here
    done = subprocess.run(["sh", "-ec", making], input=typed, env=given, check=False)
    assert done.returncode == 0
    site = CONFIG.read_text().replace("/etc/nginx/", f"{folder}/")
    for old, new in {
        "/var/log/nginx/": f"{folder}/",
        "listen 443 ssl": f"listen 127.0.0.1:{https} ssl",
        "listen 80": f"listen 127.0.0.1:{http}",
        "127.0.0.1:4200": f"127.0.0.1:{stack.environment['PREFECT_PORT']}",
        "127.0.0.1:5000": f"127.0.0.1:{stack.environment['MLFLOW_PORT']}",
    }.items():
        assert old in site
        site = site.replace(old, new)
    (folder / "site.conf").write_text(site)
    (folder / "nginx.conf").write_text(MAIN.format(folder=folder))
    assert NGINX
    # Its workers are another user's under root, and pytest's folders are closed.
    user = ["-g", "user root;"] if Path("/proc/self").stat().st_uid == 0 else []
    process = subprocess.Popen([NGINX, "-p", folder, "-c", folder / "nginx.conf", *user])
    context = ssl.create_default_context()
    for name in ("prefect", "mlflow"):
        context.load_verify_locations(folder / f"tls/{name}.pem")
    until((folder / "nginx.pid").exists, 20, "nginx runs")
    yield SimpleNamespace(folder=folder, https=https, http=http, context=context, env=env)
    process.terminate()
    process.wait(20)


def ask(proxy, method, path, host="prefect", auth=None, **more):
    """Ask by the name that the certificate is for."""
    with httpx.Client(verify=proxy.context, auth=auth, timeout=60, trust_env=False) as client:
        headers = {"Host": f"{host}.example.org", **more.pop("headers", {})}
        name = {"sni_hostname": f"{host}.example.org"}
        url = f"https://127.0.0.1:{proxy.https}{path}"
        return client.request(method, url, headers=headers, extensions=name, **more)


def test_nobody_gets_to_prefect_without_an_account(proxy):
    user, _, password = proxy.env["PREFECT_API_AUTH_STRING"].partition(":")
    for auth in (None, ("ada", "wrong"), (user, password)):
        for path in ("/", "/api/admin/settings", "/ui-settings", "/api/health"):
            assert ask(proxy, "GET", path, auth=auth).status_code == 401, (auth, path)


def test_an_account_needs_no_password_of_prefects(proxy):
    assert ask(proxy, "POST", "/api/flows/filter", auth=ADA, json={}).status_code == 200
    shown = ask(proxy, "GET", "/ui-settings", auth=ADA)
    assert shown.json()["auth"] is None
    assert "<div id" in ask(proxy, "GET", "/", auth=ADA, follow_redirects=True).text


def test_the_log_says_who_asked_for_what(proxy):
    ask(proxy, "POST", "/api/flows/?token=secret", auth=ADA, json={"name": "by ada"})
    people = proxy.folder / "people.log"
    until(lambda: " ada POST /api/flows/ 20" in people.read_text(), 10, "it is logged")
    log = people.read_text()
    password = proxy.env["PREFECT_API_AUTH_STRING"].partition(":")[2]
    for text in (log, (proxy.folder / "error.log").read_text()):
        for secret in (
            ADA[1],
            password,
            "secret",
            base64.b64encode(":".join(ADA).encode()).decode(),
        ):
            assert secret not in text


def test_a_page_elsewhere_cannot_use_the_account(proxy):
    for origin, status in {
        "https://evil.example.org": 403,
        "null": 403,
        "https://prefect.example.org": 200,
    }.items():
        answer = ask(
            proxy, "POST", "/api/flows/filter", auth=ADA, json={}, headers={"Origin": origin}
        )
        assert answer.status_code == status, origin


def test_the_files_with_passwords_are_private(proxy):
    for name in ("people", "prefect-authorization"):
        assert (proxy.folder / name).stat().st_mode & 0o037 == 0, name
    assert ":$2y$" in (proxy.folder / "people").read_text()


def test_events_come_through_for_who_has_an_account(proxy):
    host = f"prefect.example.org:{proxy.https}"
    token = encoded(":".join(ADA))

    def opened(**headers):
        with socket.create_connection(("127.0.0.1", int(proxy.https))) as line:
            return connect(
                f"wss://{host}/api/events/out",
                sock=line.dup(),
                ssl=proxy.context,
                server_hostname="prefect.example.org",
                subprotocols=[Subprotocol("prefect")],
                additional_headers=headers,
            )

    with pytest.raises(InvalidStatus, match="401"):
        opened()
    with opened(Authorization=f"Basic {token}") as stream:
        # Prefect asks once more, in a message.
        auth = {"type": "auth", "token": proxy.env["PREFECT_API_AUTH_STRING"]}
        stream.send(json.dumps(auth))
        assert json.loads(stream.recv(timeout=30)) == {"type": "auth_success"}


def test_mlflow_keeps_its_own_accounts(proxy):
    path = "/api/2.0/mlflow/experiments/search?max_results=1"
    admin = (proxy.env["MLFLOW_TRACKING_USERNAME"], proxy.env["MLFLOW_TRACKING_PASSWORD"])
    for auth, status in {None: 401, ADA: 401, admin: 200}.items():
        assert ask(proxy, "GET", path, "mlflow", auth).status_code == status
    path = "/ajax-api/3.0/mlflow/assistant/config"
    assert ask(proxy, "GET", path, "mlflow", admin).status_code == 404
    place = "/api/2.0/mlflow-artifacts/artifacts/large.bin"
    content = bytes(3_000_000)
    assert ask(proxy, "PUT", place, "mlflow", admin, content=content).status_code == 200


def test_without_tls_there_is_only_the_way_to_it(proxy):
    answer = httpx.get(
        f"http://127.0.0.1:{proxy.http}/flows",
        headers={"Host": "prefect.example.org"},
        trust_env=False,
    )
    assert answer.status_code == 301
    assert answer.headers["Location"] == "https://prefect.example.org/flows"
