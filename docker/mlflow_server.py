"""The MLflow server with accounts.

Everything comes from the environment, so that no password is in the process list; only the account
database must be named in a file.
"""

import os
import sys
from pathlib import Path

from pipeline.artifacts.files import atomic


def main() -> None:
    """Write the accounts' configuration, create the administrator, and serve."""
    os.umask(0o077)
    # MLflow reads the file with interpolation: a percent sign is written twice.
    uri = os.environ["MLFLOW_BACKEND_STORE_URI"].replace("%", "%%")
    # A password is checked against its hash once a minute: checking it for each of the hundred
    # requests that register a model would take most of a minute.
    with atomic(Path(os.environ["MLFLOW_AUTH_CONFIG_PATH"])) as file:
        file.write_text(
            "[mlflow]\n"
            "default_permission = READ\n"
            f"database_uri = {uri}\n"
            "auth_cache_ttl_seconds = 60\n"
        )
    from mlflow.cli import server
    from mlflow.exceptions import MlflowException
    from mlflow.server.auth import bootstrap_admin_user

    try:
        # Here and not in a server process, which would be restarted again and again.
        bootstrap_admin_user()
    except MlflowException as error:
        sys.exit(f"error: {error.message}")
    server(["--app-name", "training-accounts"])


if __name__ == "__main__":
    main()
