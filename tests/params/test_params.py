import pytest

from pipeline.artifacts.project import PARAMS_FILE
from pipeline.errors import ParamsError
from pipeline.models.backbones.backbones import find
from pipeline.models.plan import ModelPlan
from pipeline.models.recipes import Recipe
from pipeline.params.params import load_params
from pipeline.params.resolve import resolve
from tests.conftest import ROOT

SHIPPED = (ROOT / PARAMS_FILE).read_text()
# A small file for the cases, so that they do not hang on what ships.
GOOD = """\
dataset: digits
models: [dense, cnn]
seed: 7
datasets:
  flowers:
    source: flowers.zip
    image_size: [32, 32]
    recipes: digits
recipes:
  digits:
    dense:
      layers: [flatten, {dense: 16, activation: relu}]
      epochs: 3
    cnn:
      layers: [{conv: 8}, batch_norm, {activation: gelu}, {dropout: 0.2}, flatten]
      optimizer: {name: sgd, momentum: 0.9}
      epochs: 2
      seed: 3
  default:
    dense:
      layers: [flatten]
      epochs: 1
"""


def load(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    return load_params(path)


def test_what_ships_is_valid():
    params = load_params(ROOT / PARAMS_FILE)
    assert params.dataset == "digits"
    assert [params.recipe("digits", model).epochs for model in params.models]


def test_the_plan_of_a_model_names_the_weights_of_its_backbone(tmp_path):
    text = GOOD.replace("[flatten, {dense: 16, activation: relu}]", "[{backbone: mobilenet_v1}]")
    resolve(load(tmp_path, text), tmp_path / "plan")
    plans = [ModelPlan.load(tmp_path / "plan/models" / f"{name}.json") for name in ("dense", "cnn")]
    assert plans[0].weights == find("mobilenet_v1", 0.25).weights
    assert plans[1].weights is None


def test_defaults_and_seed_are_filled_in(tmp_path):
    params = load(tmp_path, GOOD)
    dense, cnn = params.recipe("digits", "dense"), params.recipe("digits", "cnn")
    assert (dense.seed, cnn.seed) == (7, 3)
    assert (dense.optimizer.name, dense.optimizer.learning_rate) == ("adam", 0.001)
    assert (cnn.optimizer.name, cnn.optimizer.learning_rate) == ("sgd", 0.01)
    assert [type(layer).__name__ for layer in cnn.layers] == [
        "Conv",
        "BatchNorm",
        "Activate",
        "Dropout",
        "Flatten",
    ]


def test_recipes_are_own_borrowed_or_default(tmp_path):
    params = load(tmp_path, GOOD)
    assert set(params.recipes_for("digits")) == {"dense", "cnn"}
    assert params.recipes_for("flowers") == params.recipes_for("digits")
    assert set(params.recipes_for("anything")) == {"dense"}


def test_numbers_may_be_written_as_dvc_writes_them(tmp_path):
    text = GOOD.replace("momentum: 0.9", "learning_rate: 1e-3")
    assert load(tmp_path, text).recipe("digits", "cnn").optimizer.learning_rate == 0.001


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("dataset: digits", "datset: digits", ["datset: unknown key", "did you mean dataset?"]),
        ("epochs: 3", "epoch: 3", ["params.yaml:13: recipes.digits.dense.epoch", "mean epochs?"]),
        ("{conv: 8}", "{conv: 8, stride: 2}", ["cnn.layers.0.stride: unknown", "mean strides?"]),
        ("{conv: 8}", "{konv: 8}", ["recipes.digits.cnn.layers.0", "one of: conv, dense"]),
        (
            "{conv: 8}",
            "{conv_block: 8, max_pol: 2}",
            ["params.yaml:15: recipes.digits.cnn.layers.0.max_pol: unknown", "mean max_pool?"],
        ),
        (
            "{conv: 8}",
            "{conv_block: 8, max_pool: 1}",
            ["params.yaml:15: recipes.digits.cnn.layers.0.max_pool: ", "received 1"],
        ),
        ("{dropout: 0.2}", "{dropout: 1.5}", ["layers.3.dropout", "less than 1; received 1.5"]),
        ("epochs: 3", "epochs: 0", ["recipes.digits.dense.epochs", "received 0"]),
        ("epochs: 3", "epochs: .inf", ["recipes.digits.dense.epochs", "received inf"]),
        ("models: [dense, cnn]", "models: []", ["params.yaml:2: models", "received []"]),
        ("models: [dense, cnn]", "models: [a, a]", ["params.yaml:2: models", "named twice: a, a"]),
        ("seed: 7", "device: tpu", ["params.yaml:3: device", "'auto', 'cpu' or 'gpu'", "'tpu'"]),
        ("name: sgd", "name: adam", ["momentum belongs to muon, rmsprop and sgd; this is adam"]),
        ("epochs: 3", "epochs: 3\n      loss: fokal", ["dense.loss.name", "or 'focal'", "'fokal'"]),
        (
            "epochs: 3",
            "epochs: 3\n      loss: {name: categorical_crossentropy, gamma: 1}",
            ["dense.loss: gamma belongs to focal; this is categorical_crossentropy"],
        ),
        (
            "epochs: 3",
            "epochs: 3\n      label_smoothing: 0.1",
            ["label_smoothing needs loss: categorical_crossentropy or focal"],
        ),
        (
            "epochs: 3",
            "epochs: 3\n      class_weights: balance",
            ["params.yaml:14: recipes.digits.dense.class_weights: expected balanced, or weights"],
        ),
        (
            "epochs: 3",
            "epochs: 3\n      class_weights: {1: 2, 2: 0}",
            ["dense.class_weights: the weight of 2 must be a number above 0; received 0"],
        ),
        (
            "epochs: 3",
            "epochs: 3\n      class_weights: balanced\n      sampling: balanced",
            ["recipes.digits.dense: ", "together twice: choose one"],
        ),
        (
            "epochs: 3",
            "epochs: 3\n      keep: last\n      patience: 2",
            ["recipes.digits.dense: patience ", "needs keep: best"],
        ),
        (
            "momentum: 0.9",
            "clip_norm: 1, clip_value: 1",
            ["cnn.optimizer: gradients are clipped by clip_norm or by clip_value"],
        ),
        (
            "epochs: 3",
            "epochs: 3\n      augmentation: {color_jitter: {hue: 0.6}}",
            ["dense.augmentation.color_jitter.hue", "less than or equal to 0.5; received 0.6"],
        ),
        (
            "epochs: 3",
            "epochs: 3\n      augmentation: {color_jitter: {colour: 1}}",
            ["color_jitter.colour: unknown key; allowed: brightness, contrast, saturation, hue"],
        ),
        ("[32, 32]", "[32, 2]", ["datasets.flowers.image_size.1", "received 2"]),
        ("dataset: digits", "dataset: ../digits", ["params.yaml:1: dataset", "'../digits'"]),
        ("seed: 7", "seed: [", ["is not YAML", "line"]),
        ("seed: 7", "seed: 7\nseed: 8", ["duplicate key"]),
        (GOOD, "- a list", ["must hold keys and values"]),
    ],
)
def test_a_mistake_names_key_place_and_what_is_allowed(tmp_path, old, new, words):
    assert old in GOOD
    with pytest.raises(ParamsError) as caught:
        load(tmp_path, GOOD.replace(old, new, 1))
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_missing_file_says_where(tmp_path):
    with pytest.raises(ParamsError, match="is missing in"):
        load_params(tmp_path / "params.yaml")


def test_an_unknown_model_names_the_allowed_ones(tmp_path):
    with pytest.raises(ParamsError, match=r"unknown model 'cn'.*allowed: dense, cnn.*mean cnn\?"):
        load(tmp_path, GOOD).recipe("digits", "cn")


def test_borrowing_from_nobody_is_an_error(tmp_path):
    params = load(tmp_path, GOOD.replace("recipes: digits", "recipes: nobody"))
    with pytest.raises(ParamsError, match=r"datasets.flowers.recipes is 'nobody'; allowed: digits"):
        params.recipes_for("flowers")


def test_what_ships_is_short():
    lines = SHIPPED.splitlines()
    assert len(lines) <= 310
    ends = tuple(f"      {key}:" for key in Recipe.model_fields if key != "layers")
    for start, line in enumerate(lines):
        if line.strip().startswith("layers:"):
            length = next(n for n, after in enumerate(lines[start:]) if after.startswith(ends))
            assert length <= 10, f"params.yaml:{start + 1}: layers on {length} lines"
