import io

import pytest
from ruamel.yaml import YAML

from flows.forms.yaml_edit import edit
from pipeline.errors import ParamsError
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("text", "path", "value", "expected"),
    [
        ("a: 1  # one\nb: 2\n", ["a"], 3, "a: 3  # one\nb: 2\n"),
        ("a: {b: 1} # x\n", ["a", "c"], True, "a: {b: 1, c: true} # x\n"),
        ("a: {}\n", ["a", "b", "c"], "d", "a: {b: {c: d}}\n"),
        ("a:\n  b: 1\n  # end\nz: 1\n", ["a", "c"], 2, "a:\n  b: 1\n  c: 2\n  # end\nz: 1\n"),
        (
            "optimizer: adam\n",
            ["optimizer", "momentum"],
            0.5,
            "optimizer: {name: adam, momentum: 0.5}\n",
        ),
        ("optimizer: adam\n", ["optimizer", "name"], "sgd", "optimizer: {name: sgd}\n"),
        (
            "a: [batch_norm]\n",
            ["a", "0", "scale"],
            False,
            "a: [{batch_norm: true, scale: false}]\n",
        ),
        ("a: [x, {b: 1}]\n", ["a", "1", "b"], "yes", 'a: [x, {b: "yes"}]\n'),
        # As `dvc exp run -S` writes lists, and with comments between key and value.
        ("a:\n- x\n- y\nb: 2\n", ["a"], ["z"], "a: [z]\nb: 2\n"),
        ("a:  # names\n- x\n- y\nb: 2\n", ["a"], ["z"], "a: [z]  # names\nb: 2\n"),
        ("a:\n  # names\n  - x\nb: 2\n", ["a"], ["z"], "a: [z]\n  # names\nb: 2\n"),
        ("r:\n  a:\n  - x: 1\n  - y\nb: 2\n", ["r", "a"], [], "r:\n  a: []\nb: 2\n"),
        ("a:\n- x\n- y\nb: 2\n", ["a", "1"], "z", "a:\n- x\n- z\nb: 2\n"),
        ("a: 1\r\nb: 2\r\n", ["b"], None, "a: 1\r\nb: null\r\n"),
        # A list in brackets over several lines keeps its lines.
        (
            "a: [\n  {b: 1}, {c: 2},\n  {b: 3}\n]\nz: 1\n",
            ["a", "2", "b"],
            4,
            "a: [\n  {b: 1}, {c: 2},\n  {b: 4}\n]\nz: 1\n",
        ),
        (
            "r:\n  m:\n    a: [\n      x, y\n    ]\nz: 1\n",
            ["r", "m", "new"],
            1,
            "r:\n  m:\n    a: [\n      x, y\n    ]\n    new: 1\nz: 1\n",
        ),
        ("a: [\n  x,  # one\n]\nz: 1\n", ["z"], 2, "a: [\n  x,  # one\n]\nz: 2\n"),
        # A list with a line per entry.
        ("a:\n  - x: 1\n  - y: 2\n", ["a", "1", "y"], 3, "a:\n  - x: 1\n  - y: 3\n"),
        # Lists and mappings are replaced on one line.
        ("a: [x]  # one\n", ["a"], ["w", {"b": 1}], "a: [w, {b: 1}]  # one\n"),
        ("a:\n  - x\n  - y\n# end\nz: 1\n", ["a"], ["w"], "a: [w]\n# end\nz: 1\n"),
        ("a:  # why\n  - x\nz: 1\n", ["a"], ["w"], "a: [w]  # why\nz: 1\n"),
        ("a: {b: 1}\n", ["c"], {"d": {"e": []}}, "a: {b: 1}\nc: {d: {e: []}}\n"),
        ("a:\nb: 1\n", ["a"], 2, "a: 2\nb: 1\n"),
        ("a: 1\n", ["a"], "größer: als", 'a: "größer: als"\n'),
    ],
)
def test_one_value_is_set_and_every_other_character_stays(text, path, value, expected):
    assert edit(text, path, value) == expected
    found = YAML(typ="safe").load(expected)
    for key in path:
        found = found[int(key) if isinstance(found, list) else key]
    assert found == value


def test_an_entry_that_a_list_does_not_have_is_refused():
    with pytest.raises(ParamsError, match="no entry 2 in a list of 1"):
        edit("a: [x]\n", ["a", "2", "b"], 1)


def test_every_value_can_be_set_in_what_dvc_has_rewritten():
    content = YAML(typ="safe").load(ROOT / "params.yaml")
    rewritten = io.StringIO()
    YAML().dump(content, rewritten)
    for path in paths(content):
        changed = YAML(typ="safe").load(edit(rewritten.getvalue(), path, [1, "new"]))
        expected = YAML(typ="safe").load(rewritten.getvalue())
        parent = expected
        for key in path[:-1]:
            parent = parent[int(key) if isinstance(parent, list) else key]
        parent[int(path[-1]) if isinstance(parent, list) else path[-1]] = [1, "new"]
        assert changed == expected, path


SKIPPED = ("search", "default", "mnist", "fashion_mnist", "cifar10", "validation")


def paths(content, above=()):
    """Yield the keys that lead to each value; of the recipes those of one dataset do."""
    entries = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in entries:
        path = [*above, str(key)]
        yield path
        if isinstance(value, dict | list) and key not in SKIPPED:
            yield from paths(value, path)
