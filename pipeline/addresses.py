"""Where people find a page of MLflow."""

import os

# Where browsers reach MLflow, if not where the commands do.
UI_URL = "MLFLOW_UI_URL"


def mlflow_url() -> str | None:
    """Return where a browser finds MLflow; None where the store is a file or a database."""
    url = os.environ.get(UI_URL) or os.environ.get("MLFLOW_TRACKING_URI", "")
    return url.rstrip("/") if url.startswith(("http://", "https://")) else None


def mlflow_page(path: str) -> str | None:
    """Return the address of a page, such as `models/digits/versions/1`."""
    base = mlflow_url()
    return f"{base}/#/{path}" if base else None
