"""The files of a folder as DVC keeps them: the version that dvc.lock names."""

import json
from pathlib import Path

from pipeline.artifacts.project import cache_folder, find
from pipeline.errors import ParamsError


def stored_files(folder: Path) -> dict[str, Path]:
    """Return the files that DVC's cache has of an output, by name; none where it has none.

    They are never written to: the cache trusts them.

    Args:
        folder: an output of a stage, of which the last version is meant; it need not exist, as DVC
            removes it before the stage runs.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    root = find()
    if root is None:
        return {}
    try:
        path = folder.absolute().relative_to(root).as_posix()
        lock = YAML(typ="safe").load(root / "dvc.lock")
        outs = [out for stage in lock["stages"].values() for out in stage.get("outs", [])]
        md5 = next(out["md5"] for out in outs if out["path"] == path)
        objects = cache_folder(root) / "files" / "md5"
        listed = json.loads((objects / md5[:2] / md5[2:]).read_text())
        found = {row["relpath"]: objects / row["md5"][:2] / row["md5"][2:] for row in listed}
    except (OSError, ValueError, LookupError, TypeError, StopIteration, YAMLError, ParamsError):
        return {}
    return {name: path for name, path in found.items() if path.is_file()}
