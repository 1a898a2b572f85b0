"""What is remembered of files: never of one that has changed."""

import os
import sqlite3

import pytest

from pipeline.artifacts import local_cache
from pipeline.artifacts.local_cache import Digests


@pytest.fixture(autouse=True)
def _settled(monkeypatch):
    monkeypatch.setattr(local_cache, "UNSETTLED_SECONDS", -1.0)


def remembered(database, file, sha256="ab" * 32):
    with Digests(database) as digests:
        if not digests.look_up(str(file)):
            digests.remember(str(file), sha256)
    with Digests(database) as digests:
        return digests.look_up(str(file))


def test_an_unchanged_file_is_remembered(tmp_path):
    (tmp_path / "a").write_bytes(b"a")
    assert remembered(tmp_path / "db", tmp_path / "a") == "ab" * 32


def test_a_changed_file_is_not_even_with_its_old_size_and_time(tmp_path):
    file = tmp_path / "a"
    file.write_bytes(b"a")
    before = file.stat()
    assert remembered(tmp_path / "db", file)
    file.write_bytes(b"b")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with Digests(tmp_path / "db") as digests:
        assert digests.look_up(str(file)) == ""


def test_a_file_that_may_still_change_is_not_remembered(tmp_path, monkeypatch):
    monkeypatch.setattr(local_cache, "UNSETTLED_SECONDS", 60.0)
    (tmp_path / "a").write_bytes(b"a")
    assert remembered(tmp_path / "db", tmp_path / "a") == ""


@pytest.mark.parametrize("content", [b"", b"no database at all, but long enough to be one" * 99])
def test_a_damaged_database_is_made_anew(tmp_path, content):
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "db").write_bytes(content)
    assert remembered(tmp_path / "db", tmp_path / "a") == "ab" * 32


def test_without_a_database_all_files_are_read(tmp_path):
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "file").write_bytes(b"")
    assert remembered(tmp_path / "file" / "db", tmp_path / "a") == ""
    other = sqlite3.connect(tmp_path / "other")
    other.execute("CREATE TABLE files (name TEXT)")
    other.close()
    assert remembered(tmp_path / "other", tmp_path / "a") == ""
