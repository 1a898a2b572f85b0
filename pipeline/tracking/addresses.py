"""The addresses of MLflow's pages in a browser."""

import os

from pipeline.redaction import without_login

# The address for browsers, if it is not the one for commands.
UI_URL = "MLFLOW_UI_URL"


def mlflow_url() -> str | None:
    """Return where a browser finds MLflow; None where the store is a file or a database.

    A login in it is left out: pages are shown to everybody, and the browser asks for one.
    """
    url = os.environ.get(UI_URL) or os.environ.get("MLFLOW_TRACKING_URI", "")
    return without_login(url).rstrip("/") if url.startswith(("http://", "https://")) else None


def mlflow_page(path: str) -> str | None:
    """Return the address of a page, such as `models/digits/versions/1`."""
    base = mlflow_url()
    return f"{base}/#/{path}" if base else None
