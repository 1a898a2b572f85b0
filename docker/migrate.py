"""Bring the databases of MLflow, of its accounts and of Prefect to the schema of this release.

Runs before any server, as servers that migrate at the same time break a new database. Addresses
come from the environment: every user of the machine can read the arguments of a process.
"""

import os
import subprocess
import sys

import mlflow.db
import mlflow.server.auth.db.cli


def main() -> None:
    """Migrate all three; does nothing where they are up to date."""
    store = os.environ["MLFLOW_BACKEND_STORE_URI"]
    # The accounts' tables may share the database: they keep their revision in a table of their
    # own. They come second, because MLflow takes only an empty database for a new one.
    mlflow.db.upgrade.callback(store)
    mlflow.server.auth.db.cli.upgrade.callback(store, "head")
    print("MLflow's database is up to date", flush=True)
    command = ["prefect", "--no-prompt", "server", "database", "upgrade", "-y"]
    sys.exit(subprocess.run(command, check=False).returncode)


if __name__ == "__main__":
    main()
