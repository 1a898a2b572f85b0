"""What made a model, as entries of text, and the entries in which two models differ."""

import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.models.recipes import Recipe
from pipeline.registry.passport import Passport
from pipeline.tracking.provenance import Provenance
from pipeline.tracking.run import flat

Entries = dict[str, str]
SECTIONS = ("recipe", "params", "data", "code", "packages", "hardware")


@dataclass(frozen=True)
class Origin:
    """What made a model.

    Attributes:
        sections: the entries of each of `SECTIONS`; None where nothing is known.
        layers: the layers of the recipe, one line each.
        full: whether it comes from a passport, which knows more about data and code.
    """

    sections: Mapping[str, Entries | None]
    layers: tuple[str, ...] = ()
    full: bool = False


@dataclass(frozen=True)
class Change:
    """An entry in which two models differ; empty where only the other model has it."""

    key: str
    a: str
    b: str


@dataclass(frozen=True)
class Section:
    """What differs in a section; `unknown` names the models whose entries are not known."""

    name: str
    changes: tuple[Change, ...]
    unknown: tuple[str, ...] = ()


def from_run(
    tags: Mapping[str, str], provenance: Provenance | None, passport: Passport | None
) -> Origin:
    """Gather what is known.

    Args:
        tags: the tags of the run.
        provenance: None for runs that are older than that file.
        passport: None for a model that is not registered.
    """
    made = passport.provenance if passport else provenance
    data = _data(passport) if passport else {}
    named = {"processed data, md5": "data_md5", "raw data, md5": "raw_md5"}
    data |= {key: tags[tag] for key, tag in named.items() if tag in tags}
    if made is None:
        known: dict[str, Entries | None] = {"data": data}
        return Origin({name: known.get(name) for name in SECTIONS})
    environment = made.environment
    sections: dict[str, Entries | None] = {
        "recipe": _recipe(made),
        "params": _params(made.params_yaml),
        "data": data,
        "code": _code(made, passport),
        "packages": {"python": environment.python, **environment.packages},
        "hardware": {
            "device": made.device,
            "platform": environment.platform,
            **environment.hardware,
        },
    }
    return Origin(sections, _layers(made.recipe), full=passport is not None)


def _recipe(made: Provenance) -> Entries:
    recipe = made.recipe.model_dump(mode="json", exclude={"layers"}, exclude_none=True)
    return _texts(recipe) | {"deterministic": str(made.deterministic)}


def _layers(recipe: Recipe) -> tuple[str, ...]:
    """Return a line per layer, without keys that are left at their default."""
    lines = []
    for layer in recipe.layers:
        kind, value = next(iter(layer.model_dump(mode="json").items()))
        chosen = layer.model_dump(mode="json", exclude_defaults=True)
        rows = {kind: value} | chosen
        lines.append(", ".join(k if v is True else f"{k}: {v}" for k, v in rows.items()))
    return tuple(lines)


def _params(text: str) -> Entries | None:
    """Return params.yaml without the recipes; the recipe that was used is a section of its own."""
    try:
        content = YAML(typ="safe").load(io.StringIO(text))
    except YAMLError:
        return None
    if not isinstance(content, dict):
        return None
    return _texts({key: value for key, value in content.items() if key != "recipes"})


def _texts(nested: Mapping[str, Any]) -> Entries:
    return {key: str(value) for key, value in flat(nested).items()}


def _data(passport: Passport) -> Entries:
    data = passport.data
    return {
        "classes": ", ".join(data.class_names),
        "image shape": " x ".join(map(str, data.image_shape)),
        **{f"images in {split}": f"{count:,}" for split, count in data.counts.items()},
        "warnings": ", ".join(data.warnings) or "none",
        **{f"source {row.get('file', '')}": row.get("sha256", "")[:12] for row in data.origin},
        "test split, md5": passport.test_md5,
    }


def _code(made: Provenance, passport: Passport | None) -> Entries:
    code = made.code
    digest = hashlib.sha256(code.diff.encode()).hexdigest()
    changed = f"{len(code.diff.splitlines())} lines of diff, sha256 {digest[:12]}"
    left = "unknown" if code.dirty is None else (changed if code.dirty else "none")
    modules = passport.training_code if passport else {}
    return {
        "commit": code.commit or "none",
        "branch": code.branch or "none",
        "not committed": left,
        **{path: f"sha256 {digest[:12]}" for path, digest in code.lockfiles.items()},
        **{path: f"md5 {digest[:12]}" for path, digest in modules.items()},
    }


def differences(a: Origin, b: Origin) -> tuple[Section, ...]:
    """Return what differs, section by section."""
    return tuple(_differences(name, a, b) for name in SECTIONS)


def _differences(name: str, a: Origin, b: Origin) -> Section:
    rows_a, rows_b = a.sections[name], b.sections[name]
    if rows_a is None or rows_b is None:
        unknown = [side for side, rows in (("A", rows_a), ("B", rows_b)) if rows is None]
        return Section(name, (), tuple(unknown))
    keys = list(dict.fromkeys([*rows_a, *rows_b]))
    if a.full != b.full and name in ("data", "code"):
        # That only one of them has a passport is not a difference of the models.
        keys = [key for key in keys if key in rows_a and key in rows_b]
    changes = [
        Change(key, rows_a.get(key, ""), rows_b.get(key, ""))
        for key in keys
        if rows_a.get(key) != rows_b.get(key)
    ]
    layers = _aligned(a.layers, b.layers) if name == "recipe" else []
    return Section(name, (*layers, *changes))


def _aligned(a: Sequence[str], b: Sequence[str]) -> Iterable[Change]:
    """Pair layers at the same place, each with its number."""
    for kind, a_from, a_to, b_from, b_to in SequenceMatcher(None, a, b, False).get_opcodes():
        pairs = zip_longest(range(a_from, a_to), range(b_from, b_to))
        for left, right in pairs if kind != "equal" else ():
            yield Change("layer", _numbered(a, left), _numbered(b, right))


def _numbered(layers: Sequence[str], place: int | None) -> str:
    return "" if place is None else f"{place + 1}. {layers[place]}"
