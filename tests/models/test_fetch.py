"""Weights come like data: the mirrors first, whole or not at all, verified, and kept."""

import hashlib

import pytest

from pipeline.errors import ArtifactError, DownloadError
from pipeline.models.backbones.backbones import BACKBONES
from pipeline.models.backbones.fetch import fetch
from pipeline.models.backbones.weights import Weights
from pipeline.sources.patience import Patience
from tests.mlflow_server import serve

CONTENT = b"weights" * 10_000
QUICK = Patience(connect=1, stall=1, attempts=2, backoff=0.01)
NOWHERE = "http://127.0.0.1:9/w.h5"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    for name in ("DATASET_MIRROR", "BACKBONE_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATASET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "backbones"


def weights(address=NOWHERE, content=CONTENT, **known):
    known = known or {"file_sha256": hashlib.sha256(content).hexdigest()}
    return Weights(name="net", file="w.h5", address=address, source="us", licence="MIT", **known)


@pytest.mark.parametrize("known", [{}, {"file_md5": hashlib.md5(CONTENT).hexdigest()}])
def test_a_file_is_downloaded_once_after_a_server_that_breaks_off(cache, known):
    with serve(CONTENT, ["cut"]) as (server, url):
        for _ in range(2):
            path = fetch(weights(f"{url}/w.h5", **known), QUICK)
            assert path == cache / "w.h5"
            assert path.read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_a_file_without_a_checksum_is_downloaded_once_too(cache):
    unknown = {"sha256": "0" * 64}  # of the arrays, which are looked at when they are loaded
    with serve(CONTENT) as (server, url):
        for _ in range(2):
            assert fetch(weights(f"{url}/w.h5", **unknown), QUICK).read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_another_file_than_the_official_one_is_not_kept(cache):
    with serve(CONTENT[:-1]) as (_, url), pytest.raises(DownloadError, match="its sha256 is"):
        fetch(weights(f"{url}/w.h5"), QUICK)
    assert not (cache / "w.h5").exists()


@pytest.mark.parametrize(
    ("variable", "place"), [("BACKBONE_MIRROR", "w.h5"), ("DATASET_MIRROR", "backbones/w.h5")]
)
def test_a_mirror_is_asked_first(variable, place, cache, tmp_path, monkeypatch):
    file = tmp_path / "mirror" / place
    file.parent.mkdir(parents=True)
    file.write_bytes(CONTENT)
    monkeypatch.setenv(variable, str(tmp_path / "mirror"))
    assert fetch(weights(), QUICK) == file
    file.write_bytes(b"torn")  # a damaged mirror is passed over
    with serve(CONTENT) as (server, url):
        assert fetch(weights(f"{url}/w.h5"), QUICK) == cache / "w.h5"
        monkeypatch.setenv(variable, f"{url}/of/all/")
        (cache / "w.h5").unlink()
        assert fetch(weights(), QUICK) == cache / "w.h5"
    assert server.requests[-1][0] == f"/of/all/{place}"


def test_the_error_says_which_file_where_it_was_looked_for_and_where_to_put_it(cache, monkeypatch):
    monkeypatch.setenv("DATASET_MIRROR", "/nowhere")
    with pytest.raises(DownloadError) as caught:
        fetch(weights(), QUICK)
    message = str(caught.value)
    assert message.startswith("cannot get the weights w.h5 of net: /nowhere/backbones/w.h5: no")
    assert f"put it at {cache / 'w.h5'}" in message
    assert f"download {NOWHERE} where you can" in message
    assert "set BACKBONE_MIRROR to a folder or URL" in message
    assert caught.value.retryable


def test_a_package_that_is_missing_or_damaged_is_named():
    for changes in ({"package": "no-such-package"}, {"file_sha256": "0" * 64}):
        with pytest.raises(ArtifactError, match=r"cannot be used: .*make setup"):
            fetch(BACKBONES[0].weights.model_copy(update=changes))
