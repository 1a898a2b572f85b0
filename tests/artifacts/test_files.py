import json
import subprocess
import sys

import numpy as np
import pytest

from pipeline.artifacts.files import atomic, dvc_md5, read_array, write_array, write_json
from pipeline.artifacts.validation import ValidationReport
from pipeline.errors import ArtifactError


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "file.json"
    write_json(path, {"a": 1})

    def torn():
        with atomic(path) as part:
            part.write_text("torn")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        torn()
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("kept", [200, 0])
def test_a_torn_file_is_named(tmp_path, kept):
    path = tmp_path / "x.npy"
    write_array(path, np.zeros(100))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ArtifactError, match=r"cannot read .*x\.npy"):
        read_array(path)
    with pytest.raises(ArtifactError, match=r"missing\.json is missing; .*: dvc repro"):
        ValidationReport.load(tmp_path / "missing.json")


def in_a_child(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


WRITE = """
import os, resource, signal, sys
from pathlib import Path
from pipeline.errors import ArtifactError
from pipeline.artifacts.files import write_json
if sys.argv[2] == "full":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
elif os.getuid() == 0:
    os.setuid(65534)  # root may write anywhere
try:
    write_json(Path(sys.argv[1]), ["x" * 1000] * 1000)
except ArtifactError as error:
    sys.exit(str(error))
"""


def test_a_full_disk_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, "earlier")
    done = in_a_child(WRITE, path, "full")
    assert done.returncode == 1
    assert f"cannot write {path}: File too large" in done.stderr
    assert json.loads(path.read_text()) == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_a_read_only_folder_is_named(tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir()
    for parent in [tmp_path, *list(tmp_path.parents)[:2]]:
        parent.chmod(0o755)
    folder.chmod(0o555)

    done = in_a_child(WRITE, folder / "file.json", "read-only")
    assert done.returncode == 1
    assert f"cannot write {folder / 'file.json'}: Permission denied" in done.stderr


def test_the_md5_is_the_one_under_which_dvc_stores_it(tmp_path):
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "--no-scm", "-q"], cwd=tmp_path, check=True)
    for name, text in {"b.txt": "2", "a.txt": "1", "a/z.txt": "3", "ä.txt": "4"}.items():
        file = tmp_path / "folder" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    subprocess.run([*dvc, "add", "-q", "folder"], cwd=tmp_path, check=True)
    assert f"md5: {dvc_md5(tmp_path / 'folder')}" in (tmp_path / "folder.dvc").read_text()
