"""How a version is named on the command line: `<name>@<alias>`, or `<name>/<version>`."""

from dataclasses import dataclass

from pipeline.errors import ParamsError

FORMS = "<name>@<alias>, <name>/<version>"


@dataclass(frozen=True)
class Spec:
    """A version, as it is named; whether there is such a one, only the registry knows.

    Attributes:
        name: the registered model.
        sign: `@` where `wanted` is an alias, `/` where it is a version.
    """

    name: str
    sign: str
    wanted: str

    def __str__(self) -> str:
        return f"{self.name}{self.sign}{self.wanted}"


def parse_spec(text: str, others: str = "") -> Spec:
    """Read how a version is named.

    Args:
        text: as it was given.
        others: what else is allowed where it was given, for the error.

    Raises:
        ParamsError: it is of neither form.
    """
    name, sign, wanted = text.partition("@" if "@" in text else "/")
    if not sign:
        raise ParamsError(f"{text!r} names no model; allowed: {FORMS}{others and ', '}{others}")
    return Spec(name, sign, wanted)
