"""What made a registered version, as a tree for people and as JSON for machines."""

import json
from collections.abc import Iterable
from typing import Any, Literal

from rich.text import Text
from rich.tree import Tree

from pipeline.registry.passport import Passport
from pipeline.registry.versions import Registered
from pipeline.reports.markdown import one_line
from pipeline.reports.wording import forgotten_text, in_order, metric_rows, short
from pipeline.tracking.addresses import mlflow_page
from pipeline.tracking.describe import LIBRARIES
from pipeline.tracking.provenance import Code

Part = Literal["diff", "params", "lock"]
_OTHERS_SHOWN = 20


def as_json(version: Registered, passport: Passport, checked: bool) -> dict[str, Any]:
    """Return all that is known of a version.

    Args:
        version: a version in the registry.
        passport: its passport.
        checked: whether its model was downloaded and is what was registered.
    """
    return {
        "name": version.name,
        "version": version.version,
        "aliases": list(version.aliases),
        "run_id": version.run_id,
        "model_checked": checked,
        "forgotten": version.forgotten,
        "passport": passport.model_dump(mode="json"),
    }


def text_of(passport: Passport, part: Part) -> str:
    """Return a text of a passport, unchanged; a clean tree has an empty diff."""
    provenance = passport.provenance
    texts = {
        "diff": provenance.code.diff,
        "params": provenance.params_yaml,
        "lock": passport.dvc_lock,
    }
    return texts[part]


def tree(version: Registered, passport: Passport, checked: bool) -> Tree:
    """Return a passport as a tree; for the arguments see `as_json`."""
    root = Tree(_line(version.spec, ", ".join(version.aliases) or "no alias"))
    run, environment = passport.run, passport.provenance.environment
    flow = passport.provenance.flow_run
    model = root.add(_line("model", run.model))
    matches = "; the stored bytes match" if checked else ""
    _grow(model, (("sha256", run.model_sha256 + matches), ("registered", passport.registered_at)))
    if made := passport.derived_from:
        spec = f"{version.name}/{made.version}"
        model.add(_line("derived from", f"{spec}, without training, by {made.by}"))
    if passport.guarantee:
        root.add(_line("guarantee", passport.guarantee.sentence))
    stored = root.add(_line("MLflow run", run.run_id))
    if version.run_id != run.run_id:
        _grow(stored, [("recorded again as", version.run_id)])
    elif page := mlflow_page(f"experiments/{run.experiment_id}/runs/{run.run_id}"):
        _grow(stored, [("page", page)])
    flow_run = root.add(_line("Prefect run", flow.get("flow_run_id", "none: not run by a flow")))
    if "flow_run_url" in flow:
        _grow(flow_run, [("page", flow["flow_run_url"])])
    _add_data(root, passport)
    if version.forgotten:
        root.add(_line("forgotten", forgotten_text(version.forgotten)))
    _add_validation(root, passport)
    _add_code(root, passport.provenance.code)
    _grow(root.add("params"), _params(passport))
    made_with = root.add(_line("environment", f"Python {environment.python}"))
    libraries = (f"{name} {environment.packages.get(name, 'missing')}" for name in LIBRARIES)
    rows = {
        "libraries": ", ".join(libraries),
        "packages": f"{len(environment.packages)}, each with its version; --json",
        "platform": environment.platform,
        **environment.hardware,
    }
    _grow(made_with, rows.items())
    metrics = root.add("metrics")
    for row in metric_rows(passport.metrics):
        between = f" ({row.interval})" if row.interval else ""
        _grow(metrics, [(row.label, row.value + between)])
    return root


def _add_data(root: Tree, passport: Passport) -> None:
    data = passport.data
    height, width, channels = data.image_shape
    node = root.add(_line("data", data.name))
    rows = [
        ("images", f"{height}x{width}x{channels}, {data.num_classes} classes"),
        ("licence", data.licence),
        ("raw md5", data.raw_md5),
        ("processed md5", passport.run.data_md5),
        ("each image", f"images.npz, sha256 {passport.images_sha256 or 'none: not recorded'}"),
    ]
    _grow(node, rows)
    splits = node.add("splits")
    for split, count in in_order(data.counts):
        md5 = ", ".join(f"{name} {md5}" for name, md5 in data.md5.items() if f"_{split}." in name)
        _grow(splits, [(split, f"{count:,} images; md5 {md5}")])
    sources = node.add("sources")
    for source in data.origin:
        place = f"{source.get('from', 'not known')}, sha256 {source.get('sha256') or 'not known'}"
        _grow(sources, [(source.get("file", ""), place)])


def _add_validation(root: Tree, passport: Passport) -> None:
    validation = passport.validation
    outcome = "passed" if validation.passed else "did not pass"
    node = root.add(_line("validation", f"{outcome}; checks: {len(validation.results)}"))
    broken = [row for row in validation.results if not row.passed]
    _grow(node, ((f"{row.severity} of {row.check}", row.message) for row in broken))
    if not broken:
        node.add("no warning")


def _add_code(root: Tree, code: Code) -> None:
    node = root.add(_line("code", code.commit or "no commit"))
    state = "clean"
    if code.dirty:
        state = f"dirty, a diff of {len(code.diff.encode()):,} bytes; --show diff"
    _grow(node, (("branch", code.branch or "not known"), ("tree", state), *code.lockfiles.items()))
    if code.others:
        beside = node.add(_line("beside it", "not in a commit, and no code"))
        shown = list(code.others.items())[:_OTHERS_SHOWN]
        _grow(beside, ((name, f"md5 {md5}" if md5 else "not read") for name, md5 in shown))
        if more := len(code.others) - len(shown):
            beside.add(f"and {more} more; --json")


def _params(passport: Passport) -> Iterable[tuple[str, str]]:
    provenance = passport.provenance
    yield "recipe", json.dumps(short(provenance.recipe))
    if weights := provenance.weights:
        known = f"licence {weights.licence}, sha256 of the arrays {weights.sha256 or 'not known'}"
        about = f"{weights.source}, trained on {weights.trained_on}"
        yield f"weights of {weights.name}", f"{about}, {known}"
    yield "seed", str(provenance.seed)
    yield "deterministic", str(provenance.deterministic).lower()
    yield "device", provenance.device
    for name, text, part in (
        ("params.yaml", provenance.params_yaml, "params"),
        ("dvc.lock", passport.dvc_lock, "lock"),
    ):
        yield name, f"{len(text.encode()):,} bytes; --show {part}" if text else "missing"


def _grow(node: Tree, rows: Iterable[tuple[str, str]]) -> None:
    for label, value in rows:
        node.add(_line(label, value))


def _line(label: str, value: str) -> Text:
    """Return a line as a Text: what a passport holds is not markup."""
    return Text.assemble((f"{one_line(label)}  ", "dim"), one_line(value))
