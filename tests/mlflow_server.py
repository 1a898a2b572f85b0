"""A local HTTP server that misbehaves on request."""

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Step = int | str


class Flaky:
    """Serves `content` under any path; `script` says how to treat the first requests.

    A step is a status, or one of: `html`, `cut` (promises all, sends half), `reset`, `stall`
    (sends half, then nothing), `trickle` (a byte now and then), `no-range` (ignores Range),
    `wrong-range` (answers 206 with another part), `unsized` (no length, sends half).
    """

    def __init__(self, content: bytes, script: Iterable[Step]) -> None:
        self.content, self.script = content, list(script)
        self.requests: list[tuple[str, str | None]] = []
        self.released = threading.Event()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.requests.append((handler.path, handler.headers.get("Range")))
        step = self.script.pop(0) if self.script else "ok"
        if isinstance(step, int):
            handler.send_error(step)
        elif step == "html":
            self.send(handler, b"<!DOCTYPE html><html>log in</html>", kind="text/html")
        elif step == "html-in-disguise":
            self.send(handler, b"\n<HTML><body>log in</body></HTML>")
        elif step == "reset":
            handler.close_connection = True
            handler.connection.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER 0: a reset
        else:
            self.send_file(handler, step)

    def send_file(self, handler: BaseHTTPRequestHandler, step: Step) -> None:
        start = 0
        asked = handler.headers.get("Range")
        if asked and step != "no-range":
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(self.content):
                handler.send_response(416)
                handler.send_header("Content-Range", f"bytes */{len(self.content)}")
                handler.end_headers()
                return
        body = self.content[start:]
        handler.send_response(206 if start else 200)
        if start:
            first = 0 if step == "wrong-range" else start
            handler.send_header(
                "Content-Range", f"bytes {first}-{len(self.content) - 1}/{len(self.content)}"
            )
        if step != "unsized":
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if step in ("cut", "stall", "trickle", "unsized"):
            handler.wfile.write(body[: len(body) // 2])
            handler.wfile.flush()
            self.linger(handler, step)
            handler.close_connection = True
        else:
            handler.wfile.write(body)

    def linger(self, handler: BaseHTTPRequestHandler, step: Step) -> None:
        if step == "stall":
            self.released.wait(10)
        end = time.monotonic() + 10
        while step == "trickle" and time.monotonic() < end and not self.released.wait(0.05):
            handler.wfile.write(b"x")
            handler.wfile.flush()

    def send(
        self, handler: BaseHTTPRequestHandler, body: bytes, kind: str = "application/octet-stream"
    ) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)


@contextmanager
def serve(content: bytes, script: Iterable[Step] = ()) -> Iterator[tuple[Flaky, str]]:
    """Yield the server's state and its address."""
    flaky = Flaky(content, script)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                flaky.answer(self)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # the client gave up, as it should

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield flaky, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        flaky.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
