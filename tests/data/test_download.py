"""download and sources: a file from servers that misbehave, mirrors and the cache."""

import gzip
import hashlib
import multiprocessing
import os
from pathlib import Path

import pytest

from pipeline.data.datasets import SourceFile
from pipeline.data.locate import Found, locate
from pipeline.errors import ArtifactError, DatasetError, DownloadError
from pipeline.sources.addresses import file_name
from pipeline.sources.download import download
from pipeline.sources.patience import Patience
from tests.images import make_tar
from tests.mlflow_server import serve

CONTENT = os.urandom(200_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
QUICK = Patience(connect=1, stall=0.4, slowest=1024, attempts=4, backoff=0.01)


def check(path: Path) -> str:
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SHA256:
        raise DatasetError(f"its content has the checksum {found}")
    return found


def fetch(url: str, folder: Path, pinned: bool = True) -> str:
    return download(url, folder / "x.bin", check, pinned=pinned, patience=QUICK, progress=False)


@pytest.mark.parametrize(
    "script",
    [
        [],
        [500, 503],
        [429],
        ["cut"],
        ["cut", "cut", "cut"],
        ["reset", "ok"],
        ["stall"],
        ["trickle"],
        ["cut", "no-range"],
        ["cut", "wrong-range"],
        ["cut", 500, "reset"],
    ],
)
def test_what_passes_is_tried_again(tmp_path, script):
    with serve(CONTENT, script) as (server, url):
        assert fetch(url, tmp_path) == SHA256
    assert (tmp_path / "x.bin").read_bytes() == CONTENT
    assert not (tmp_path / "x.bin.part").exists()
    assert len(server.requests) > len(script) - ("ok" in script or "no-range" in script)


@pytest.mark.parametrize(
    ("script", "reason", "requests"),
    [
        ([404] * 9, "404 Not Found", 1),
        ([403] * 9, "403 Forbidden", 1),
        (["html"] * 9, "a web page instead of the file", 1),
        (["html-in-disguise"] * 9, "a web page instead of the file", 1),
        (["unsized"] * 9, "its content has the checksum", 1),
        ([500] * 9, "500 Internal Server Error", 4),
        (["stall"] * 9, "timed out|no answer within", 4),
        (["trickle"] * 9, "stalls: .* bytes in|ends after", 4),
        (["reset"] * 9, "[Cc]onnection", 4),
        (["cut"] * 9, "ends after|IncompleteRead|more expected", 4),
    ],
)
def test_what_does_not_pass_has_a_reason(tmp_path, script, reason, requests):
    with serve(CONTENT, script) as (server, url), pytest.raises(DownloadError, match=reason) as e:
        fetch(url, tmp_path)
    assert "\n" not in str(e.value)
    assert len(server.requests) == requests
    assert not (tmp_path / "x.bin").exists()


def test_a_server_that_is_not_there(tmp_path):
    with serve(b"") as (_, url):
        pass
    with pytest.raises(DownloadError, match="refused"):
        fetch(url, tmp_path)


def test_a_cut_download_is_resumed_where_it_ended(tmp_path):
    with serve(CONTENT, ["cut"]) as (server, url):
        fetch(url, tmp_path)
    assert [asked for _, asked in server.requests] == [None, "bytes=100000-"]


def test_an_earlier_process_is_continued_where_the_checksum_is_known(tmp_path):
    (tmp_path / "x.bin.part").write_bytes(CONTENT[:150_000])
    with serve(CONTENT) as (server, url):
        fetch(url, tmp_path)
    assert [asked for _, asked in server.requests] == ["bytes=150000-"]


def test_a_complete_part_needs_only_to_be_verified(tmp_path):
    (tmp_path / "x.bin.part").write_bytes(CONTENT)
    with serve(CONTENT) as (server, url):
        fetch(url, tmp_path)
    assert len(server.requests) == 1


@pytest.mark.parametrize("stale", [b"z" * 1000, b"z" * 200_000, b"z" * 300_000])
def test_a_stale_part_is_thrown_away(tmp_path, stale):
    (tmp_path / "x.bin.part").write_bytes(stale)
    with serve(CONTENT) as (_, url):
        assert fetch(url, tmp_path) == SHA256


def test_an_earlier_process_is_not_continued_without_a_checksum(tmp_path):
    (tmp_path / "x.bin.part").write_bytes(CONTENT[:150_000])
    with serve(CONTENT) as (server, url):
        fetch(url, tmp_path, pinned=False)
    assert [asked for _, asked in server.requests] == [None]


def test_a_tampered_file_never_becomes_data(tmp_path):
    with serve(CONTENT[:-1] + b"?") as (_, url), pytest.raises(DownloadError, match="checksum"):
        fetch(url, tmp_path)
    assert not (tmp_path / "x.bin").exists()


def test_a_failure_leaves_the_earlier_file(tmp_path):
    (tmp_path / "x.bin").write_bytes(b"of before")
    with serve(CONTENT, [404]) as (_, url), pytest.raises(DownloadError):
        fetch(url, tmp_path, pinned=False)
    assert (tmp_path / "x.bin").read_bytes() == b"of before"


def test_the_cache_is_used_and_a_damaged_one_replaced(tmp_path):
    with serve(CONTENT) as (server, url):
        fetch(url, tmp_path)
        fetch(url, tmp_path)
        assert len(server.requests) == 1
        (tmp_path / "x.bin").write_bytes(CONTENT[:-1])
        fetch(url, tmp_path)
        assert len(server.requests) == 2
    assert (tmp_path / "x.bin").read_bytes() == CONTENT


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with serve(CONTENT) as (_, url), pytest.raises(ArtifactError, match="cannot write"):
        fetch(url, tmp_path / "file")


def test_two_processes_at_once_share_one_download(tmp_path):
    context = multiprocessing.get_context("fork")
    with serve(CONTENT, ["stall"]) as (server, url):
        both = [context.Process(target=fetch, args=(url, tmp_path)) for _ in range(2)]
        for process in both:
            process.start()
        for process in both:
            process.join(20)
        assert [process.exitcode for process in both] == [0, 0]
    assert (tmp_path / "x.bin").read_bytes() == CONTENT
    assert len(server.requests) == 2  # the stalled one and the rest, by one process


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DATASET_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DATASET_MIRROR", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


def look_for(
    *sources: str,
    name: str = "x.bin",
    sha256: str | None = SHA256,
    members: dict[str, str] | None = None,
) -> Found:
    file = SourceFile(name, sources, sha256=sha256, members=members or {})
    return locate("pets", file, patience=QUICK, progress=False)


def test_sources_are_tried_in_turn(cache):
    with serve(CONTENT, [404]) as (server, url):
        found = look_for(f"{url}/a", f"{url}/b")
    assert found.path == cache / "pets" / "x.bin"
    assert (found.source, found.sha256) == (f"{url}/b", SHA256)
    assert [path for path, _ in server.requests] == ["/a", "/b"]


def test_the_error_names_every_source_with_its_reason(cache):
    with serve(CONTENT[1:], [404]) as (_, url), pytest.raises(DownloadError) as caught:
        look_for(f"{url}/a", f"{url}/b", "here.bin")
    message = str(caught.value)
    assert f"{url}/a: answers 404 Not Found" in message
    assert f"{url}/b: its content has the checksum" in message
    assert "here.bin: no such file or folder" in message
    assert "set DATASET_MIRROR to a folder or URL that holds pets/x.bin, or put" in message
    assert "\n" not in message


@pytest.mark.parametrize("wrap", [bytes, gzip.compress])
def test_the_checksum_is_that_of_the_content(cache, wrap):
    with serve(wrap(CONTENT)) as (_, url):
        assert look_for(f"{url}/x.gz").sha256 == SHA256


def test_a_torn_gzip_is_named(cache):
    data = gzip.compress(CONTENT)[:-1000]
    with serve(data) as (_, url), pytest.raises(DownloadError, match="damaged or truncated"):
        look_for(f"{url}/x.gz")


def test_a_mirror_folder_is_asked_first_and_read_in_place(cache, tmp_path, monkeypatch):
    mirror = tmp_path / "mirror" / "pets"
    mirror.mkdir(parents=True)
    (mirror / "x.bin").write_bytes(CONTENT)
    monkeypatch.setenv("DATASET_MIRROR", str(tmp_path / "mirror"))
    found = look_for("http://127.0.0.1:9/x.bin")
    assert found.path == mirror / "x.bin"
    assert found.source == "http://127.0.0.1:9/x.bin"
    assert not cache.exists()


def test_a_damaged_mirror_is_passed_over(cache, tmp_path, monkeypatch):
    (tmp_path / "pets").mkdir()
    (tmp_path / "pets" / "x.bin").write_bytes(CONTENT[:-1])
    monkeypatch.setenv("DATASET_MIRROR", str(tmp_path))
    with serve(CONTENT) as (_, url):
        assert look_for(f"{url}/x.bin").path == cache / "pets" / "x.bin"


def test_a_mirror_may_be_a_url(cache, monkeypatch):
    data = gzip.compress(CONTENT)
    with serve(data) as (server, url):
        monkeypatch.setenv("DATASET_MIRROR", f"{url}/all/")
        assert look_for("x.gz", name="x.gz").path == cache / "pets" / "x.gz"
    assert server.requests[0][0] == "/all/pets/x.gz"


def test_a_path_is_relative_to_here(cache, tmp_path):
    (tmp_path / "x.bin").write_bytes(CONTENT)
    assert look_for("x.bin").sha256 == SHA256


def test_a_folder_has_no_checksum(cache, tmp_path):
    (tmp_path / "pets").mkdir()
    assert look_for("pets", sha256=None).sha256 is None
    with pytest.raises(DownloadError, match="is a folder"):
        look_for("pets")


def test_members_of_an_archive_are_pinned(cache, tmp_path):
    make_tar(tmp_path / "x.tar.gz", {"folder/a": b"1", "folder/b": b"2"})
    good = {"a": hashlib.md5(b"1").hexdigest(), "b": hashlib.md5(b"2").hexdigest()}
    assert look_for("x.tar.gz", sha256=None, members=good).sha256
    for members, reason in (({"a": "0" * 32}, "member a has"), ({"c": "0" * 32}, "it lacks c")):
        with pytest.raises(DownloadError, match=reason):
            look_for("x.tar.gz", sha256=None, members=members)


def test_without_a_checksum_the_url_is_asked_again(cache):
    with serve(CONTENT) as (server, url):
        look_for(url, sha256=None)
        look_for(url, sha256=None)
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("data/own/pets", "pets"),
        ("data/own/pets/", "pets"),
        ("https://example.org/a%20b.zip?x=1#y", "a b.zip"),
        ("https://example.org", "download"),
        ("https://example.org/a/..", "download"),
        ("s3://bucket/flowers/", "flowers"),
        ("gs://bucket/100%25 a?.zip", "100%25 a?.zip"),
    ],
)
def test_the_name_of_a_source(source, name):
    assert file_name(source) == name
