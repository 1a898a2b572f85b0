"""What is shown and written down holds no password and no token."""

import pytest

from pipeline.errors import PipelineError, TrackingError
from pipeline.redaction import holds_secret, redact, without_login

CANARY = "canary-of-20-letters"


@pytest.mark.parametrize(
    "text",
    [
        f"https://me:{CANARY}@host.example/a",
        f"https://{CANARY}@host.example/a",
        f"postgresql+psycopg2://me:{CANARY}@host/db",
        f"s3://key:{CANARY}@bucket/x?versionId=1",
        f"cannot reach http://me:p@{CANARY}@host: refused",
        f"(url: /a.zip?a=1&token={CANARY} (Caused by x))",
        f"https://h/x?X-Amz-Credential={CANARY}&X-Amz-Signature={CANARY}",
        f"https://h/x?sv=1&sig={CANARY}#top",
        f"https://h/x?accessToken={CANARY}'",
        f"https://h/x?api_key={CANARY};key={CANARY}",
    ],
)
def test_an_address_loses_what_lets_somebody_in(text):
    assert CANARY not in redact(text)
    assert "***" in redact(text)
    assert holds_secret(text)
    assert CANARY not in str(PipelineError(text))


@pytest.mark.parametrize(
    "text",
    [
        "https://host.example/a?design=1&page=2#/models/a@production",
        "models:/digits@production",
        "digits@production is version 3",
        "sqlite:////home/me/mlflow.db",
        "ask somebody@host.example",
        "data/own/flowers",
    ],
)
def test_anything_else_stays_as_it_is(text):
    assert redact(text) == text
    assert not holds_secret(text)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MLFLOW_TRACKING_PASSWORD", CANARY),
        ("MLFLOW_TRACKING_TOKEN", CANARY),
        ("AWS_SECRET_ACCESS_KEY", CANARY),
        ("AWS_SESSION_TOKEN", CANARY),
        ("PREFECT_API_AUTH_STRING", f"admin:{CANARY}"),
        ("SLACK_WEBHOOK_URL", CANARY),
        ("MLFLOW_TRACKING_URI", f"postgresql://me:{CANARY}@host/db"),
        ("MLFLOW_TRACKING_URI", f"http://me:{CANARY[:6]}%2D{CANARY[7:]}@host"),
    ],
)
def test_a_secret_of_the_environment_is_hidden_wherever_it_stands(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert CANARY not in redact(f"it said: {CANARY} is wrong")
    assert CANARY not in str(TrackingError(f"{CANARY}"))


@pytest.mark.parametrize("name", ["PWD", "OLDPWD", "NETRC", "AWS_SHARED_CREDENTIALS_FILE"])
def test_a_path_of_the_environment_is_shown(monkeypatch, name):
    monkeypatch.setenv(name, "/home/somebody/project")
    text = "params.yaml is missing in /home/somebody/project"
    assert redact(text) == text


def test_a_password_that_ends_an_address_is_hidden_as_a_whole(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://me:pass/{CANARY}@host/db")
    assert CANARY not in redact(f"cannot reach postgresql://me:pass/{CANARY}@host/db")


def test_a_word_that_happens_to_be_a_password_stays(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "digits")
    assert redact("no model digits") == "no model digits"


def test_an_address_without_its_login_still_leads_there():
    assert without_login(f"https://me:{CANARY}@host/a") == "https://host/a"
    assert without_login("https://host/a@b") == "https://host/a@b"
