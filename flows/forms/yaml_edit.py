"""The one editor of params.yaml: it sets a value and leaves every other character as it is."""

import json
import re
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node, ScalarNode, SequenceNode

from pipeline.errors import ParamsError

# Keys whose value may be a bare name: `optimizer: adam` is `optimizer: {name: adam}`.
NAMED = ("loss", "optimizer", "schedule")
PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
NOT_STRINGS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}


def edit(text: str, path: list[str], value: Any) -> str:
    """Set one value in a YAML text, and leave every other character as it is.

    Args:
        text: the YAML.
        path: the keys that lead to the value; in a list, the number of the entry. The last ones
            may be new.
        value: a number, a string, true, false, null, or a list or mapping of these, which is
            written on one line.

    Raises:
        ParamsError: the text has no such list entry.
    """
    node, key_end = YAML().compose(text), 0
    for depth, key in enumerate(path):
        rest = path[depth + 1 :]
        found = _child(node, key)
        if found is None:
            assert isinstance(node, CollectionNode)
            return _insert(text, node, f"{_written(key)}: {_nested(rest, value)}")
        node, key_end = found
        if rest and isinstance(node, ScalarNode):
            return _replace(text, node, key_end, _spelled_out(key, node.value, rest, value))
    return _replace(text, node, key_end, _written(value))


def read(content: Any, path: list[str]) -> Any:
    """Return the value at a path of what a YAML text holds, or `...` where there is none."""
    for depth, key in enumerate(path):
        if isinstance(content, str) and depth and path[depth - 1] in NAMED:
            content = {"name": content}
        if not isinstance(content, dict) or key not in content:
            return ...
        content = content[key]
    return content


def _child(node: Node, key: str) -> tuple[Node, int] | None:
    """Return the value of a key or of a list entry, and where its key ends; 0 in a list."""
    if isinstance(node, SequenceNode):
        if not key.isdigit() or int(key) >= len(node.value):
            raise ParamsError(f"params.yaml has no entry {key} in a list of {len(node.value)}")
        return node.value[int(key)], 0
    assert isinstance(node, MappingNode)
    pairs = ((value, name.end_mark.index) for name, value in node.value if name.value == key)
    return next(pairs, None)


def _spelled_out(key: str, short: str, rest: list[str], value: Any) -> str:
    """Return a mapping in place of a bare name, `{name: rmsprop}` or `{batch_norm: true}`."""
    first, given = ("name", short) if key in NAMED else (short, "true")
    if rest == [first]:
        return f"{{{first}: {_written(value)}}}"
    return f"{{{first}: {given}, {_written(rest[0])}: {_nested(rest[1:], value)}}}"


def _replace(text: str, node: Node, key_end: int, new: str) -> str:
    start, end = node.start_mark.index, _end(node)
    if key_end and start == end:  # nothing is written, as in `key:`; the mark is at the next key
        colon = text.index(":", key_end) + 1
        return f"{text[:colon]} {new}{text[colon:]}"
    head, line_break, comments = text[key_end:start].partition("\n")
    if key_end and line_break:
        # A value that begins on a line of its own moves up beside its key, before a comment there.
        beside = head.partition(":")[2].rstrip()
        below = f"\n{comments.rstrip()}" if comments.strip() else ""
        start, new = key_end, f": {new}{beside}{below}"
    return text[:start] + new + text[end:]


def _insert(text: str, node: CollectionNode, entry: str) -> str:
    """Add an entry at the end of a mapping, in the style that the mapping is written in."""
    if not node.value:
        return text[: node.start_mark.index] + f"{{{entry}}}" + text[node.end_mark.index :]
    end = _end(node.value[-1][1])
    if node.flow_style:
        return f"{text[:end]}, {entry}{text[end:]}"
    line_end = text.find("\n", end)
    line_end = len(text) if line_end < 0 else line_end
    return f"{text[:line_end]}\n{' ' * node.start_mark.column}{entry}{text[line_end:]}"


def _end(node: Node) -> int:
    """Return where the last value in a node ends; the end mark of a block is past its comments."""
    if not isinstance(node, CollectionNode) or node.flow_style or not node.value:
        return int(node.end_mark.index)
    last = node.value[-1]
    return _end(last[1] if isinstance(node, MappingNode) else last)


def _nested(keys: list[str], value: Any) -> str:
    text = _written(value)
    for key in reversed(keys):
        text = f"{{{_written(key)}: {text}}}"
    return text


def _written(value: Any) -> str:
    """Return a value as YAML on one line."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_written(key)}: {_written(one)}' for key, one in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, str) and PLAIN.fullmatch(value) and value.lower() not in NOT_STRINGS:
        return value
    return json.dumps(value, ensure_ascii=False, default=str)
