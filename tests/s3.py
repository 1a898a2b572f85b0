"""A folder served as S3 by rclone: a real server that speaks the real protocol."""

import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

LOGIN = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
}


class S3:
    """A server whose buckets are the folders in `buckets`.

    Args:
        folder: for its files.
        read_only: whether it sees at once what is written into its folders, but takes no uploads.
    """

    def __init__(self, folder: Path, read_only: bool) -> None:
        self.options = ["--dir-cache-time", "0s"] if read_only else []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.buckets, self.log = folder / "buckets", folder / "requests.log"
        (self.buckets / "images").mkdir(parents=True)
        self.seen = 0

    def start(self) -> None:
        rclone = shutil.which("rclone", path=f"{Path(sys.executable).parent}")
        assert rclone
        command = [rclone, "serve", "s3", "--auth-key", "key,secret", "-vv", *self.options]
        self.process = subprocess.Popen(
            [*command, "--log-file", self.log, "--addr", f"127.0.0.1:{self.port}", self.buckets]
        )
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        pytest.fail("rclone did not start")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def fetched(self) -> list[str]:
        """Return the objects that were read since the last question, sorted."""
        found = re.findall(r"GET OBJECT Bucket: \S+ Object: (.+)", self.log.read_text())
        new, self.seen = found[self.seen :], len(found)
        return sorted(new)


@contextmanager
def serve_s3(folder: Path, read_only: bool = True) -> Iterator[S3]:
    server = S3(folder, read_only)
    server.start()
    try:
        yield server
    finally:
        server.stop()
