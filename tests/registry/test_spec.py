"""How a version is named."""

import pytest

from pipeline.errors import ParamsError
from pipeline.registry.spec import Spec, parse_spec


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("digits@production", Spec("digits", "@", "production")),
        ("digits/3", Spec("digits", "/", "3")),
        ("digits/", Spec("digits", "/", "")),
        ("a/b@c", Spec("a/b", "@", "c")),
    ],
)
def test_an_alias_or_a_version(text, spec):
    assert parse_spec(text) == spec
    assert str(spec) == text


def test_what_names_no_version_is_refused_with_what_is_allowed():
    with pytest.raises(ParamsError, match=r"^'digits' names no model; allowed: <name>@<alias>, "):
        parse_spec("digits")
    with pytest.raises(ParamsError, match=r"<name>/<version>, or a folder$"):
        parse_spec("digits", "or a folder")
