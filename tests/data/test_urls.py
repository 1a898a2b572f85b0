"""Tables that name images by URL: a server that misbehaves, ETags, and the cache."""

import csv
import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.artifacts.datasets import RawDataset
from pipeline.data.ingest import ingest
from pipeline.data.settings import DatasetPlan, ImageFolder
from pipeline.errors import DownloadError
from pipeline.sources import urls
from pipeline.sources.objects import AT_ONCE
from pipeline.sources.patience import Patience
from tests.images import files, write
from tests.s3 import LOGIN, serve_s3

QUICK = Patience(connect=1, stall=0.5, attempts=2, backoff=0.01)


class Photos:
    """A web server: `content` by path, `fails` with a status or `cut` by path."""

    def __init__(self, content: dict[str, bytes]) -> None:
        self.content, self.fails = content, dict[str, int | str]()
        self.sent: list[str] = []
        # The first so many requests are answered when all of them have come.
        self.first = 0
        self.together = threading.Barrier(AT_ONCE, timeout=20)
        self.address = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.partition("?")[0].lstrip("/")
        fails, body = self.fails.get(path), self.content.get(path, b"")
        if isinstance(fails, int) or not body:
            handler.send_error(fails if isinstance(fails, int) else 404)
            return
        tag = f'"{hashlib.md5(body).hexdigest()}"'
        if handler.headers.get("If-None-Match") == tag:
            handler.send_response(304)
            handler.end_headers()
            return
        self.sent.append(path)
        handler.send_response(200)
        handler.send_header("ETag", tag)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: len(body) // 2] if fails == "cut" else body)
        handler.close_connection = True

    def news(self) -> list[str]:
        sent, self.sent = self.sent, []
        return sorted(sent)


@contextmanager
def serve(content: dict[str, bytes]) -> Iterator[Photos]:
    photos, lock = Photos(content), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with lock:
                waits, photos.first = photos.first > 0, photos.first - 1
            if waits:
                photos.together.wait()
            photos.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 64

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    photos.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield photos
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.delenv("DATASET_MIRROR", raising=False)
    monkeypatch.setenv("DATASET_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(urls, "Patience", lambda: QUICK)


Write = Callable[[list[tuple[str, str]]], str]


def as_csv(rows: list[tuple[str, str]]) -> str:
    with Path("labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("url", "label"), *rows])
    return "labels.csv"


def as_jsonl(rows: list[tuple[str, str]]) -> str:
    table = pd.DataFrame(rows, columns=["file", "label"])
    table.to_json("labels.jsonl", orient="records", lines=True)
    return "labels.jsonl"


def as_parquet(rows: list[tuple[str, str]]) -> str:
    paths = [{"bytes": None, "path": url} for url, _ in rows]
    table = pa.table({"image": paths, "label": [label for _, label in rows]})
    pq.write_table(table, "labels.parquet")
    return "labels.parquet"


def rows_of(address: str, names: list[str]) -> list[tuple[str, str]]:
    return [(f"{address}/{name}", name.split("/")[0]) for name in names]


def take(source: str) -> RawDataset:
    entry = ImageFolder(source=source, image_size=(10, 12))
    return ingest(DatasetPlan(name="pets", entry=entry), Path("raw"), progress=False)


def errors(raw: RawDataset) -> dict[str, str]:
    table = pd.read_parquet(raw.files)
    return dict(table[table["error"] != ""][["file", "error"]].itertuples(index=False))


@pytest.mark.parametrize("write_table", [as_csv, as_jsonl, as_parquet])
def test_images_are_fetched_once_and_then_what_changed(write_table):
    content = files(count=10)
    with serve(content) as photos:
        source = write_table(rows_of(photos.address, list(content)))
        photos.first = AT_ONCE
        raw = take(source)
        assert raw.info.class_names == ("cat", "dog")
        assert sum(raw.info.counts.values()) == 20
        assert errors(raw) == {}
        assert photos.news() == sorted(content)
        take(source)
        assert photos.news() == []
        photos.content["cat/3.png"] = files(("cow",), count=30)["cow/29.png"]
        take(source)
        assert photos.news() == ["cat/3.png"]


def test_what_is_not_to_be_had_is_an_unreadable_image(tmp_path):
    content = files(count=6)
    rows = [("here/0.png", "cat"), ("http://127.0.0.1:9/x.png", "dog"), ("http://[", "dog")]
    write(tmp_path, {"here/0.png": files(("x",), count=9)["x/8.png"]})
    with serve(content) as photos:
        photos.fails |= {"cat/1.png": 404, "cat/2.png": 500, "dog/1.png": "cut"}
        names = [*content, "dog/secret.png?token=do-not-store"]
        found = errors(take(as_csv([*rows_of(photos.address, names), *rows])))
        reasons = {
            f"{photos.address}/cat/1.png": "answers 404 Not Found",
            f"{photos.address}/cat/2.png": "answers 500 Internal Server Error",
            f"{photos.address}/dog/1.png": "ends after|IncompleteRead|more expected",
            f"{photos.address}/dog/secret.png?token=***": "answers 404 Not Found",
            "http://127.0.0.1:9/x.png": "refused",
            "http://[": "not a URL|Invalid",
        }
        assert set(found) == set(reasons)
        for name, reason in reasons.items():
            assert any(word in found[name] for word in reason.split("|")), found[name]
        # What was here before stays while a server does not answer, and goes where it is gone.
        photos.fails = {"cat/0.png": 503, "cat/4.png": 410}
        assert set(errors(take(as_csv(rows_of(photos.address, list(content)))))) == {
            f"{photos.address}/cat/4.png"
        }


def test_a_server_that_never_answers_is_not_asked_for_every_image(monkeypatch):
    monkeypatch.setattr(urls, "GIVEN_UP", 3)
    with serve({}) as photos:
        gone = photos.address
    source = as_csv([(f"{gone}/{number}.png", "cat") for number in range(200)])
    with pytest.raises(DownloadError, match="pets: none of the images is to be had: ") as caught:
        take(source)
    assert caught.value.retryable


def test_the_files_of_a_table_that_is_fetched_are_beside_it():
    content = {f"pets/{name}": data for name, data in files(("a cat", "dog #1"), count=5).items()}
    rows = "".join(f"{name[5:]},{name.split('/')[1]}\n" for name in content)
    with serve({quote(name): data for name, data in content.items()}) as photos:
        photos.content["pets/labels.csv"] = f"file,label\n{rows}".encode()
        raw = take(f"{photos.address}/pets/labels.csv")
        assert errors(raw) == {}
        assert raw.info.class_names == ("a cat", "dog #1")
        assert set(pd.read_parquet(raw.files)["file"]) == {name[5:] for name in content}


def test_a_table_names_objects_of_a_store(tmp_path, monkeypatch):
    for name, value in LOGIN.items():
        monkeypatch.setenv(name, value)
    content = files()
    with serve_s3(tmp_path) as s3:
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3.address)
        write(s3.buckets / "images", content)
        source = as_csv(rows_of("s3://images", [*content, "cat/none.png"]))
        assert errors(take(source)) == {
            "s3://images/cat/none.png": "no such bucket, file or folder"
        }
        assert s3.fetched() == sorted(content)
        take(source)
        assert s3.fetched() == []
        rows = "".join(f"{name},{name.split('/')[0]}\n" for name in content)
        (s3.buckets / "images" / "labels.csv").write_text(f"file,label\n{rows}")
        assert errors(take("s3://images/labels.csv")) == {}
        assert s3.fetched() == ["labels.csv"]  # the images are those of before
