"""PostgreSQL without its image: what the image's entrypoint does on a new database."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interpolation import ComposeError

SERVICE = "postgres"
INIT = Path(__file__).with_name("postgres") / "databases.sql"
TOOLS = ("initdb", "pg_ctl", "postgres", "psql", "pg_isready")


def binaries(environ: Mapping[str, str]) -> Path | None:
    """Return the folder with PostgreSQL's programs, which are not on the PATH in Debian.

    Where POSTGRES_BIN is set, it is the only one.
    """
    if environ.get("POSTGRES_BIN"):
        folders = [Path(environ["POSTGRES_BIN"])]
    else:
        folders = [Path(p) for p in environ.get("PATH", os.defpath).split(os.pathsep)]
        installed = Path("/usr/lib/postgresql").glob("*/bin")
        folders += sorted(installed, key=lambda p: float(p.parent.name), reverse=True)
    return next((f for f in folders if all((f / tool).exists() for tool in TOOLS)), None)


def identity() -> dict[str, Any]:
    """Return the user to start PostgreSQL as, if this is root, which PostgreSQL refuses.

    Raises:
        ComposeError: there is no such user.
    """
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    raise ComposeError("PostgreSQL refuses to run as root; start the stack as another user")


def create(target: Path, folder: Path, environment: Mapping[str, str], port: str) -> None:
    """Make a new cluster with its databases, unless it is there; whole or not at all.

    Args:
        target: the cluster's folder.
        folder: with PostgreSQL's programs.
        environment: the environment of the service, with the passwords.
        port: to listen on during that, on loopback.

    Raises:
        ComposeError: a program failed.
    """
    if target.exists():
        return
    # In a folder beside the target, which that user may write to, and which is then renamed.
    draft = target.with_name(f"{target.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)
    who = identity()
    if who:
        os.chown(draft, who["user"], who["group"])
        _check_access(draft, who)
    with tempfile.TemporaryDirectory() as scratch:
        if who:
            os.chown(scratch, who["user"], who["group"])
        _initialise(draft, folder, Path(scratch), environment, port, who)
    draft.rename(target)


def _check_access(path: Path, who: dict[str, Any]) -> None:
    if subprocess.run(["ls", str(path)], capture_output=True, check=False, **who).returncode:
        raise ComposeError(
            f"PostgreSQL refuses to run as root, and its user may not enter {path}; "
            "start the stack as another user, or put it elsewhere with --home"
        )


def _initialise(
    draft: Path,
    folder: Path,
    scratch: Path,
    environment: Mapping[str, str],
    port: str,
    who: dict[str, Any],
) -> None:
    password, log = scratch / "password", scratch / "log"
    password.write_text(environment["POSTGRES_PASSWORD"])
    password.chmod(0o644)  # the folder is private
    env = {**environment, "PGDATA": str(draft), "PGPASSWORD": environment["POSTGRES_PASSWORD"]}

    def run(*command: str) -> None:
        # To a file, as the server would keep a pipe open.
        with log.open("ab") as output:
            done = subprocess.run(
                [str(folder / command[0]), *command[1:]],
                env=env,
                cwd=scratch,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
                **who,
            )
        if done.returncode:
            reason = "\n".join(log.read_text().splitlines()[-15:])
            raise ComposeError(f"{command[0]} ended with {done.returncode}:\n{reason}")

    run(
        *("initdb", "--username=postgres", f"--pwfile={password}", "--auth=scram-sha-256"),
        *("--encoding=UTF8", "--no-locale"),
    )
    # Sockets would need a folder with a short name; everything here goes through loopback.
    with (draft / "postgresql.conf").open("a") as file:
        file.write("\n# Set by docker/cluster.py\nunix_socket_directories = ''\n")
    run("pg_ctl", "start", "--wait", "-o", f"-c listen_addresses=127.0.0.1 -c port={port}")
    try:
        connection = ("--host=127.0.0.1", f"--port={port}", "--username=postgres")
        # What root may read, that user may not: it is handed over.
        script = scratch / INIT.name
        shutil.copyfile(INIT, script)
        run("psql", "--no-psqlrc", "--quiet", *connection, f"--file={script}", "postgres")
    finally:
        run("pg_ctl", "stop", "--wait", "--mode=fast")
