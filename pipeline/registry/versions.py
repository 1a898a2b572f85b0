"""Versions in the MLflow registry: create one, find it, point aliases at it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlflow.tracking import MlflowClient

from pipeline.errors import TrackingError, did_you_mean
from pipeline.registry.ledger_run import create_registered_model
from pipeline.registry.spec import Spec, parse_spec
from pipeline.tracking.store import connect, reaching, store_uri

CHALLENGER, PRODUCTION, PREVIOUS = "challenger", "production", "previous"
# The tag of a version that was made with images that are kept out since: how many.
FORGOTTEN = "forgotten"
# The tag of a version that was made from another one without training: its number.
DERIVED_FROM = "derived_from"
# The tag that tells what was changed, so that the same is not registered twice.
DERIVATION = "derivation"
# The tag that says what a version promises.
GUARANTEE = "guarantee"


@dataclass(frozen=True)
class Registered:
    """One version in the registry, and the aliases that point at it.

    Attributes:
        tags: what it was registered with; `model_sha256` and `passport_sha256` among them.
        created: when the store made it, in seconds since 1970.
    """

    name: str
    version: int
    aliases: tuple[str, ...]
    run_id: str
    tags: Mapping[str, str]
    created: float

    @property
    def forgotten(self) -> int:
        """How many images it was trained or validated on that are to be forgotten since."""
        return int(self.tags.get(FORGOTTEN, 0))

    @property
    def spec(self) -> str:
        """How it is named on the command line: `<name>/<version>`."""
        return f"{self.name}/{self.version}"


def find_version(
    name: str, run_id: str, model_sha256: str, derivation: str | None = None
) -> Registered | None:
    """Return the version that this run made of these bytes, or None.

    Args:
        name: the registered model.
        run_id: the run.
        model_sha256: the sha256 of the Keras file.
        derivation: the tag of a version that was derived; None: the one that was trained.
    """
    client = connect()
    with reaching("look for the version"):
        for found in client.search_model_versions(f"name = '{name}'"):
            same = found.run_id == run_id and found.tags.get("model_sha256") == model_sha256
            if same and found.tags.get(DERIVATION) == derivation:
                return _registered(client, name, int(found.version))
    return None


def create_version(name: str, uri: str, run_id: str, tags: Mapping[str, Any]) -> Registered:
    """Register a model that was logged."""
    client = connect()
    with reaching("register the model"):
        if not client.search_registered_models(f"name = '{name}'"):
            create_registered_model(client, name)
        text = {key: str(value) for key, value in tags.items() if value is not None}
        # A server wants to be told what the URI says: `models:/<model_id>`.
        model_id = uri.removeprefix("models:/")
        made = client.create_model_version(name, uri, run_id=run_id, tags=text, model_id=model_id)
        return _registered(client, name, int(made.version))


def version_text(number: int | None) -> str:
    """Return a version as messages name it."""
    return "no version" if number is None else f"version {number}"


def alias_holders(name: str) -> dict[str, int]:
    """Return which version each alias points at; empty where there is no such model."""
    client = connect()
    with reaching("read the aliases"):
        # Only this call fills in the aliases; a search leaves them empty.
        if not client.search_registered_models(f"name = '{name}'"):
            return {}
        model = client.get_registered_model(name)
        return {alias: int(number) for alias, number in model.aliases.items()}


def set_alias(name: str, alias: str, number: int | None) -> None:
    """Point an alias at a version, or with None take it away."""
    client = connect()
    with reaching(f"set the alias {alias}"):
        if number is None:
            client.delete_registered_model_alias(name, alias)
        else:
            client.set_registered_model_alias(name, alias, str(number))


def set_tag(name: str, number: int, tag: str, value: object) -> None:
    """Tag a version."""
    client = connect()
    with reaching(f"tag version {number} of {name}"):
        client.set_model_version_tag(name, str(number), tag, str(value))


def names() -> list[str]:
    """Return the names of all registered models."""
    client = connect()
    with reaching("read the registry"):
        found, token = [], None
        while token != "":
            page = client.search_registered_models(page_token=token)
            found += [str(model.name) for model in page]
            token = page.token or ""
    return found


def all_of(name: str) -> list[Registered]:
    """Return all versions of a model, the oldest first; none where there is no such model."""
    client = connect()
    with reaching("read the registry"):
        numbers = [int(v.version) for v in client.search_model_versions(f"name = '{name}'")]
        return [_registered(client, name, number) for number in sorted(numbers)]


def check_name(name: str) -> None:
    """Refuse a name that no registered model has.

    Raises:
        TrackingError: there is none; the message names those there are.
    """
    known = names()
    if name not in known:
        there = f"there are: {', '.join(known)}" if known else "it is empty"
        raise TrackingError(
            f"no model {name!r} is registered in {store_uri()}; {there}{did_you_mean(name, known)}"
            "; run dvc repro, or, where that finds nothing to do, as after dvc pull: "
            "dvc repro --force --single-item register"
        )


def exists(name: str, number: int) -> bool:
    """Return whether there is such a version."""
    client = connect()
    with reaching("read the registry"):
        found = client.search_model_versions(f"name = '{name}'")
        return any(int(version.version) == number for version in found)


def find(spec: str) -> Registered:
    """Find a version.

    Args:
        spec: `<name>@<alias>` or `<name>/<version>`.

    Raises:
        ParamsError: it is of neither form.
        TrackingError: there is no such model, alias or version; the message names those there are.
    """
    client, wanted = connect(), parse_spec(spec)
    number = _number(client, wanted)
    with reaching(f"find {spec}"):
        return _registered(client, wanted.name, number)


def _number(client: MlflowClient, spec: Spec) -> int:
    """Find the version that a spec names."""
    name = spec.name
    check_name(name)
    with reaching("read the registry"):
        aliases = dict(client.get_registered_model(name).aliases)
        numbers = [int(v.version) for v in client.search_model_versions(f"name = '{name}'")]
    found = str(aliases.get(spec.wanted)) if spec.sign == "@" else spec.wanted
    if found not in map(str, numbers):
        allowed = [f"{name}@{alias}" for alias in sorted(aliases)]
        allowed += [f"{name}/{number}" for number in sorted(numbers)]
        raise TrackingError(f"no model {spec}; there are: {', '.join(allowed)}")
    return int(found)


def _registered(client: MlflowClient, name: str, number: int) -> Registered:
    version = client.get_model_version(name, str(number))
    aliases = client.get_registered_model(name).aliases
    held = sorted(alias for alias, holder in aliases.items() if int(holder) == number)
    created = version.creation_timestamp / 1000
    return Registered(name, number, tuple(held), version.run_id, dict(version.tags), created)
