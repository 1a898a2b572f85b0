"""What every entry of every list must keep, so that a new one is tested before it has tests."""

import ast
import re
import subprocess
import sys
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import get_args

import grimp
import keras
import numpy as np
import pytest
from ruamel.yaml import YAML
from typer.main import get_command
from typer.testing import CliRunner

from pipeline.artifacts.models import RunInfo
from pipeline.cli import app
from pipeline.data import datasets
from pipeline.data.layout import layout
from pipeline.data.readers.content import Caps
from pipeline.data.readers.listing import list_images
from pipeline.data.readers.reader import Columns
from pipeline.data.readers.readers import READERS, entries
from pipeline.errors import DatasetError
from pipeline.evaluation import metrics
from pipeline.evaluation.metric import TrainingMetric, Unit
from pipeline.evaluation.robustness.attributes import LOOKS, RECORDED, Look
from pipeline.evaluation.robustness.corruptions import CORRUPTIONS, SEVERITIES
from pipeline.models import build as models
from pipeline.models.layer import Layer, SingleLayer
from pipeline.models.layers import BY_KIND, LAYERS, Flatten, layer_kind
from pipeline.models.optimizers import OPTIMIZERS, Optimizer, OptimizerKind
from pipeline.models.recipes import Augmentation, Recipe
from pipeline.params.params import load_params
from pipeline.production.floors import floors
from pipeline.production.rules import RULES, Thresholds
from pipeline.reports import wording
from pipeline.tracking import describe
from pipeline.training.backends import fused_tensorflow
from pipeline.training.engine import Data, fit
from pipeline.training.logistic import fit_softmax
from pipeline.training.optimizers import optimizer_class
from pipeline.validation import checks
from tests.images import files
from tests.layers import layers_with, smallest
from tests.samples import SAMPLES
from tests.scored import candidate, case, incumbent, rights

ROOT = Path(__file__).parent.parent
PARAMS = load_params(ROOT / "params.yaml")
GRAPH = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
# The command line only carries paths, so a changed help text must not train anything.
UNTRACKED = {"pipeline.cli", "pipeline.workspace"}


# What is loaded by path, or handed in by the command line, and not imported.
MORE = {
    "pipeline.registry.model_files": "pipeline.registry.served_model",
    "pipeline.production.register": "pipeline.reports.card",
}


def stage(name):
    return GRAPH[name].get("do", GRAPH[name])


@pytest.fixture(scope="module")
def imports():
    return grimp.build_graph("pipeline", exclude_type_checking_imports=True, cache_dir=None)


def module_of(name):
    """The one module that has the name of a stage; which package owns it is nobody's business."""
    (path,) = (ROOT / "pipeline").glob(f"*/{name}.py")
    return f"pipeline.{path.parent.name}.{name}"


@pytest.mark.parametrize("name", GRAPH)
def test_a_stage_depends_on_exactly_the_packages_that_it_reaches(name, imports):
    module = module_of(name)
    reached = imports.find_upstream_modules(module) | {module}
    for more in [MORE[m] for m in reached & set(MORE)]:
        reached |= imports.find_upstream_modules(more) | {more}
    parts = {m.split(".")[1] for m in reached - {"pipeline"}}
    folders = {part for part in parts if (ROOT / "pipeline" / part).is_dir()}
    expected = {f"pipeline/{part}" for part in folders}
    expected |= {f"pipeline/{part}.py" for part in parts - folders}
    listed = {dep for dep in stage(name)["deps"] if dep.startswith("pipeline/")}
    assert not reached & UNTRACKED
    assert listed == expected, (
        f"in dvc.yaml, {name} lacks {sorted(expected - listed)}, has {sorted(listed - expected)}"
    )


def test_provenance_lists_the_files_of_what_train_depends_on():
    listed = {dep for dep in stage("train")["deps"] if dep.startswith("pipeline/")}
    assert listed == {f"pipeline/{name}" for name in (*describe.PACKAGES, *describe.MODULES)}


@pytest.mark.parametrize("name", GRAPH)
def test_a_stage_is_one_word_everywhere(name):
    words = stage(name)["cmd"].split()
    assert words[:2] == ["pipeline", name]
    assert hasattr(import_module(module_of(name)), name)
    assert CliRunner().invoke(app, [name, "--help"]).exit_code == 0


@pytest.mark.parametrize("name", GRAPH)
def test_a_stage_reads_only_parameters_that_exist(name):
    fields = type(PARAMS).model_fields
    for param in stage(name).get("params", []):
        assert param == {"params.yaml": None} or param in fields


@pytest.mark.parametrize("dataset", [*datasets.known_names(), *PARAMS.datasets])
def test_every_dataset_has_recipes(dataset):
    assert {"dense", "cnn"} <= set(PARAMS.recipes_for(dataset))


# Words that would let a file run code where it is loaded; ruff bans what always does.
UNSAFE = {"allow_pickle": "True", "safe_mode": "False", "typ": "'unsafe'", "weights_only": "False"}


@pytest.mark.parametrize("folder", ["pipeline", "flows", "docker", "benchmarks"])
def test_no_file_that_is_loaded_runs_code(folder):
    for file in (ROOT / folder).rglob("*.py"):
        for call in ast.walk(ast.parse(file.read_text())):
            if isinstance(call, ast.Call):
                given = {(word.arg, ast.unparse(word.value)) for word in call.keywords}
                assert not given & UNSAFE.items(), f"{file}:{call.lineno}"
                if ast.unparse(call.func) == "keras.saving.load_model":
                    assert ("safe_mode", "True") in given, f"{file}:{call.lineno}"


def test_every_check_of_params_is_one():
    checks.check_names(PARAMS.validation)


def test_every_check_is_documented():
    page = (ROOT / "docs" / "datasets.md").read_text()
    for name in checks.BY_NAME:
        assert f"| `{name}` |" in page, f"docs/datasets.md has no row for the check {name}"


@pytest.mark.parametrize("metric", metrics.METRICS, ids=lambda metric: metric.name)
def test_every_metric_is_complete_and_documented(metric):
    assert metrics.BY_NAME[metric.name] is metric, "two metrics have the same name"
    assert metric.unit in wording.UNITS, "pipeline/reports/wording.py writes no such unit"
    assert set(get_args(Unit)) == set(wording.UNITS)
    floor = f"`promotion.floors.{metric.floor.key}`" if metric.floor else ""
    cells = (f"`{metric.name}`", metric.label, metric.unit, metric.better or "", floor)
    row = "".join(f"| {cell} " if cell else "| " for cell in cells) + "|"
    page = (ROOT / "docs" / "compare-models.md").read_text()
    assert row in page, f"docs/compare-models.md lacks the row {row}"
    if isinstance(metric, TrainingMetric):
        assert metric.name in RunInfo.model_fields, "run.json has no such number"


def row_of(page, *cells):
    row = f"| {' | '.join(cells)} |"
    assert row in (ROOT / "docs" / page).read_text(), f"docs/{page} lacks the row {row}"


@pytest.mark.parametrize("shape", [(8, 8, 1), (32, 48, 3), (224, 224, 3)], ids=str)
@pytest.mark.parametrize("kind", CORRUPTIONS, ids=lambda kind: kind.name)
def test_every_corruption_is_documented_and_does_more_the_more_severe_it_is(kind, shape):
    levels = ", ".join(f"{level:g}" for level in kind.levels)
    row_of("robustness.md", kind.name, kind.does, levels, kind.unit)
    rng = np.random.default_rng(0)
    coarse = rng.integers(60, 196, (6, 4, 4, shape[2])).astype(np.uint8)
    images = coarse.repeat(shape[0] // 4, axis=1).repeat(shape[1] // 4, axis=2)
    before = images.copy()
    made = [kind.at(images, severity) for severity in SEVERITIES]
    assert all(each.dtype == np.uint8 and each.shape == images.shape for each in made)
    changes = [np.abs(each.astype(float) - images).mean() for each in made]
    assert 0 < changes[0] < changes[-1]
    assert changes == sorted(changes)
    assert (images == before).all()
    assert (kind.at(images, 3) == made[2]).all(), "the same again is not the same"
    assert (kind.at(images, 3, seed=1) != made[2]).any() == (kind.name in DRAWN)


DRAWN = {"gaussian noise", "brightness", "rotation"}


@pytest.mark.parametrize("one", [*LOOKS, *RECORDED], ids=lambda one: one.name)
def test_every_attribute_is_documented_and_tells_images_apart(one):
    row_of("robustness.md", one.name, one.tells, "each value" if one.name == "group" else "thirds")
    gray = np.zeros((3, 8, 8), np.float32)
    gray[1, 2:6, 2:6], gray[2] = 255, np.random.default_rng(0).integers(0, 256, (8, 8))
    known = {"height": np.array([9, 9, 18]), "width": np.array([16, 4, 4])}
    known["group"] = np.array(["a", "b", ""], object)
    values = one.measure(gray) if isinstance(one, Look) else one.read(known)
    assert len(set(values.tolist())) == 3


GATE = (*floors(), *RULES)
CASE = case(
    candidate(rights(20, [1]), forgotten=1, error=0.01), incumbent(rights(20, range(9)), error=0.01)
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_rule_is_documented_and_has_its_thresholds(rule):
    assert [other.name for other in GATE].count(rule.name) == 1, "two rules have the same name"
    keys = ", ".join(f"`promotion.{key}`" for key in rule.thresholds)
    row = f"| `{rule.name}` | {rule.question} | {keys} |"
    page = (ROOT / "docs" / "promotion.md").read_text()
    assert row.replace("|  |", "| |") in page, f"docs/promotion.md lacks the row {row}"
    for key in rule.thresholds:
        assert key in Thresholds.model_fields, f"Thresholds in rules.py lacks {key}"


@pytest.mark.parametrize("rule", GATE, ids=lambda rule: rule.name)
def test_every_rule_answers_in_two_wordings(rule):
    thresholds = PARAMS.promotion.model_copy(update={"floors": dict.fromkeys(metrics.FLOORS, 0.5)})
    found = rule.find(CASE, thresholds)
    assert found is not None, "it asks nothing"
    passed, failed = (rule.message(found, passed) for passed in (True, False))
    assert passed, "it says nothing where a version passes"
    assert failed not in ("", passed), "it says the same where a version fails"


PETS = files(("cat", "dog"), count=3)


def sample(reader, folder):
    assert reader.name in SAMPLES, f"SAMPLES in tests/samples.py lacks the format {reader.name}"
    return SAMPLES[reader.name](folder / f"pets{''.join(reader.endings[:1])}", PETS)


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_every_reader_is_documented_and_reads_what_it_recognises(reader, tmp_path):
    page = (ROOT / "docs" / "datasets.md").read_text()
    row = re.search(rf"^\| `{re.escape(reader.name)}` \|.*$", page, re.MULTILINE)
    assert row, f"docs/datasets.md has no row for the format {reader.name}"
    assert all(f"`{ending}`" in row[0] for ending in reader.endings)
    path = sample(reader, tmp_path)
    assert next(one for one in READERS if one.recognises(path)) == reader
    found = layout(list_images(reader.entries(path, Caps(), Columns())), ["data"])
    assert found.class_names == ("cat", "dog")
    images = [
        (entry.label or entry.name.split("/")[0], entry.read())
        for entry in reader.entries(path, Caps(), Columns())
        if not entry.name.endswith(("/", ".csv", ".jsonl"))
    ]
    assert sorted(images) == sorted((name.split("/")[0], data) for name, data in PETS.items())
    assert len(found.images) == len(PETS)


@pytest.mark.parametrize(
    "reader", [one for one in READERS if one.endings], ids=lambda one: one.name
)
def test_every_reader_of_files_explains_damage(reader, tmp_path):
    path = sample(reader, tmp_path)
    whole = path.read_bytes()
    for damaged in (b"", b"no such format", whole[: len(whole) // 2 + 3]):
        path.write_bytes(damaged)
        with pytest.raises(DatasetError, match=path.name):
            [entry.read() for entry in entries(path)]


def test_every_key_of_a_recipe_is_documented():
    page = (ROOT / "docs" / "recipes.md").read_text()
    for name in Recipe.model_fields:
        assert f"`{name}`" in page


@pytest.mark.parametrize("name", Augmentation.model_fields)
def test_every_key_of_an_augmentation_is_documented(name):
    page = (ROOT / "docs" / "recipes.md").read_text()
    assert f"| `{name}` |" in page, f"docs/recipes.md has no row for the augmentation {name}"


def test_every_layer_is_in_the_list():
    made = {*Layer.__subclasses__(), *SingleLayer.__subclasses__()} - {SingleLayer}
    assert made == set(LAYERS), "LAYERS in pipeline/models/layers.py lacks a layer"
    assert len(BY_KIND) == len(LAYERS), "two layers have the same name"


@pytest.mark.parametrize("kind", BY_KIND)
def test_every_layer_and_its_keys_are_documented(kind):
    page = (ROOT / "docs" / "recipes.md").read_text()
    row = re.search(rf"^\| `{kind}` \|.*$", page, re.MULTILINE)
    assert row, f"docs/recipes.md has no row for the layer {kind}"
    for key in BY_KIND[kind].model_fields:
        assert f"`{key}`" in row[0], f"in docs/recipes.md the row of {kind} lacks `{key}`"


# Those of a backbone are counted in models/test_backbones.
@pytest.mark.parametrize("kind", [kind for kind in BY_KIND if kind != "backbone"])
def test_every_layer_builds_and_counts_as_keras_does(kind):
    layer = smallest(kind)
    recipe = Recipe.model_validate(
        {"layers": [layer.model_dump(exclude_none=True), "flatten"], "epochs": 1}
    )
    assert recipe.layers[0] == layer
    shape, built = (7, 9, 3), models.build(recipe, (7, 9, 3), 2, 0)
    for part in layer.parts():
        made = built.get_layer(f"{layer_kind(part)}_1")
        after = made.output.shape[1:]
        kernels = sum(int(np.prod(w.shape)) for w in made.weights if len(w.shape) > 1)
        counted = part.multiplications(shape)
        expected = kernels * int(np.prod(after[:-1]))
        assert counted == expected, f"{type(part).__name__}.multiplications of {shape}"
        shape = part.output_shape(shape)
        assert shape == (1, 1, 1, *after)[-3:], f"{type(part).__name__}.output_shape"


@pytest.mark.parametrize("kind", BY_KIND)
def test_every_layer_survives_saving(kind, tmp_path):
    layer, shape = smallest(kind), (33, 35, 3)
    model = models.build(Recipe(layers=(layer, Flatten()), epochs=1), shape, 2, 0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    images = np.random.default_rng(0).integers(0, 256, (2, *shape), dtype=np.uint8)
    np.testing.assert_array_equal(loaded(images), model(images))


@pytest.mark.parametrize(
    ("kind", "key"), [(kind, key) for kind, layer in BY_KIND.items() for key in layer.model_fields]
)
def test_every_key_of_a_layer_reaches_keras(kind, key):
    if get_args(BY_KIND[kind].model_fields[key].annotation) == (True,):
        return  # there is nothing to choose
    settings = [
        [(part.keras_class, part.settings_at((96, 96, 3))) for part in layer.parts()]
        for layer in layers_with(kind, key)
    ]
    assert any(one != settings[0] for one in settings), f"settings() of {kind} leaves out {key}"


@pytest.mark.parametrize("kind", OPTIMIZERS, ids=lambda kind: kind.name)
def test_every_optimizer_and_its_keys_are_documented(kind):
    page = (ROOT / "docs" / "recipes.md").read_text()
    row = re.search(rf"^\| `{kind.name}` \|.*$", page, re.MULTILINE)
    assert row, f"docs/recipes.md has no row for the optimizer {kind.name}"
    rate = [f"`learning_rate` {kind.learning_rate}"] if kind.keras_class else []
    for key in (*rate, *(f"`{key}`" for key in kind.settings)):
        assert key in row[0], f"in docs/recipes.md the row of {kind.name} lacks {key}"


@pytest.mark.parametrize("kind", OPTIMIZERS, ids=lambda kind: kind.name)
def test_every_optimizer_is_one_of_keras_and_takes_the_keys_of_a_recipe(kind):
    if kind.keras_class:
        assert hasattr(keras.optimizers, kind.keras_class), f"Keras has no {kind.keras_class}"
    assert set(kind.settings) < set(Optimizer.model_fields), (
        f"Optimizer in pipeline/models/optimizers.py lacks a key of {kind.name}"
    )
    for backend, module in kind.twins.items():
        assert hasattr(import_module(module), kind.keras_class), (
            f"{module} lacks {kind.keras_class}, the twin of {kind.name} on {backend}"
        )


def test_every_fast_twin_of_an_optimizer_is_in_the_list():
    made = {
        name
        for name, value in vars(fused_tensorflow).items()
        if isinstance(value, type) and issubclass(value, keras.optimizers.Optimizer)
    }
    listed = {kind.keras_class for kind in OPTIMIZERS if "tensorflow" in kind.twins}
    assert made == listed, "twins in OPTIMIZERS in pipeline/models/optimizers.py"


@pytest.mark.parametrize(
    "kind", [kind for kind in OPTIMIZERS if kind.twins], ids=lambda kind: kind.name
)
def test_the_fast_twin_of_an_optimizer_takes_the_steps_of_keras_own(kind):
    own, twin = getattr(keras.optimizers, kind.keras_class), optimizer_class(kind)
    assert twin is not own
    settings = {"momentum": 0.9, "nesterov": True}
    taken = [{}, *({key: settings[key] for key in kind.settings[:n]} for n in (1, 2))]
    draws = np.random.default_rng(0).normal(size=(20, 100)).astype(np.float32)
    first = np.linspace(-1, 1, 100, dtype=np.float32)
    for given, decay in product([*taken, {**taken[-1], "weight_decay": 0.01}], (0, 0.1)):
        ends = []
        for made in (own, twin):
            rate = keras.optimizers.schedules.InverseTimeDecay(0.01, 1, decay)
            optimizer, variable = made(learning_rate=rate, **given), keras.Variable(first)
            optimizer.build([variable])
            for gradient in draws:
                optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
            ends.append(np.asarray(variable))
        assert np.abs(ends[0] - first).max() > 0.01
        np.testing.assert_allclose(ends[0], ends[1], atol=3e-6)


def test_an_optimizer_without_a_fast_twin_is_trained_by_keras_own():
    assert optimizer_class(OptimizerKind("nadam", "Nadam")) is keras.optimizers.Nadam
    assert optimizer_class(OptimizerKind("adam", "Adam")) is keras.optimizers.Adam


@pytest.mark.parametrize("kind", OPTIMIZERS, ids=lambda kind: kind.name)
def test_every_optimizer_trains_a_model(kind):
    labels = np.repeat([0, 1], 32)
    images = np.repeat(255 * labels.astype(np.uint8), 16).reshape(64, 4, 4, 1)
    hidden, rate = ([{"dense": 8}], {"learning_rate": 0.01}) if kind.keras_class else ([], {})
    optimizer = {"name": kind.name, **rate}
    content = {"layers": ["flatten", *hidden], "optimizer": optimizer, "epochs": 10}
    recipe = Recipe.model_validate(content)
    data = Data(images, labels, images, labels, ("dark", "bright"))
    model = models.build(recipe, (4, 4, 1), 2, 0)
    history = (
        fit(model, recipe, data, seed=0) if kind.keras_class else fit_softmax(model, recipe, data)
    )
    assert history.kept.val_accuracy == 1


def test_help_comes_at_once_because_nothing_heavy_is_imported():
    code = (
        "import sys, pipeline.cli; "
        "heavy = {'tensorflow', 'keras', 'mlflow', 'great_expectations', 'pandas', 'sklearn'}; "
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def documented(pattern):
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return {match for page in pages for match in re.findall(pattern, page.read_text(), re.M)}


def test_every_command_is_documented_and_every_documented_command_exists():
    commands = set(get_command(app).commands)  # type: ignore[attr-defined]
    mentioned = documented(r"pipeline ([a-z]+)\b(?=[ `\n])")
    assert commands <= mentioned | set(GRAPH)
    assert documented(r"^(?: {3})?pipeline ([a-z]+) (?=[a-z]+\.|--|#| )") <= commands


def test_every_documented_make_target_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert documented(r"`?make ([a-z-]+)`") <= targets
    assert {"run", "test", "lint", "ui"} <= targets
