"""Variables in compose.yaml: `${NAME}`, `${NAME:-default}`, `${NAME:?message}`, also nested."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class ComposeError(Exception):
    """The compose file or one of its variables is wrong."""


@dataclass(frozen=True)
class Variable:
    """A `${NAME…}` in the file.

    Attributes:
        name: the name of the variable.
        operator: one of `:-`, `-`, `:?`, `?`, or empty for a plain `${NAME}`.
        argument: the default or the message.
    """

    name: str
    operator: str
    argument: str


def parse(text: str) -> Iterator[str | Variable]:
    """Split a text into literal parts and variables; `$$` is a dollar sign.

    Raises:
        ComposeError: a `$` is not followed by a variable.
    """
    at = 0
    while (dollar := text.find("$", at)) >= 0:
        yield text[at:dollar]
        rest = text[dollar + 1 :]
        if rest.startswith("$"):
            yield "$"
            at = dollar + 2
        elif rest.startswith("{"):
            end = _closing(text, dollar)
            yield _variable(text[dollar + 2 : end])
            at = end + 1
        elif found := _NAME.match(rest):
            yield Variable(found[0], "", "")
            at = dollar + 1 + found.end()
        else:
            raise ComposeError(f"{text!r}: write a literal dollar sign as $$")
    yield text[at:]


def _closing(text: str, start: int) -> int:
    depth = 0
    for at in range(start, len(text)):
        if text.startswith("${", at):
            depth += 1
        elif text[at] == "}":
            depth -= 1
            if depth == 0:
                return at
    raise ComposeError(f"{text!r}: a closing brace is missing")


def _variable(text: str) -> Variable:
    name = _NAME.match(text)
    rest = text[name.end() :] if name else ""
    for operator in (":-", ":?", "-", "?"):
        if name and rest.startswith(operator):
            return Variable(name[0], operator, rest[len(operator) :])
    if not name or rest:
        raise ComposeError(
            f"${{{text}}} is not a variable; allowed: ${{NAME}}, ${{NAME:-default}}, "
            "${NAME-default}, ${NAME:?message}, ${NAME?message}"
        )
    return Variable(name[0], "", "")


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """Put the values of variables into a text, as `docker compose` does.

    Raises:
        ComposeError: a variable that must be set is not.
    """
    return "".join(
        part if isinstance(part, str) else _value(part, variables) for part in parse(text)
    )


def _value(variable: Variable, variables: Mapping[str, str]) -> str:
    value = variables.get(variable.name)
    # With a colon, empty counts as not set.
    if value is None or (value == "" and variable.operator.startswith(":")):
        if variable.operator.endswith("?"):
            reason = interpolate(variable.argument, variables) or "is not set"
            raise ComposeError(f"{variable.name} {reason}; set it, see docker/.env.example")
        return interpolate(variable.argument, variables)
    return value


def fill(node: Any, variables: Mapping[str, str]) -> Any:
    """Return a part of the file with all variables replaced by their values."""
    if isinstance(node, str):
        return interpolate(node, variables)
    if isinstance(node, dict):
        return {key: fill(value, variables) for key, value in node.items()}
    if isinstance(node, list):
        return [fill(value, variables) for value in node]
    return node


def variables_in(node: Any) -> Iterator[Variable]:
    """Return the variables in a part of the file, also those inside of defaults."""
    if isinstance(node, str):
        for part in parse(node):
            if isinstance(part, Variable):
                yield part
                yield from variables_in(part.argument)
    elif isinstance(node, dict | list):
        for value in node.values() if isinstance(node, dict) else node:
            yield from variables_in(value)
