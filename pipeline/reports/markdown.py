"""Markdown from a template, and a page from Markdown; values that are filled in stay plain text.

Class names and other input of users end up here, and the result is read by several programs: the
browser, the MLflow UI, GitHub. So characters that any of them treats as markup become HTML
entities, which all of them show as text.
"""

import html
import re
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt

_MARKUP = re.compile(
    r"""[&<>`*{}\[\]|$\\~^@#]
    | (?<![^\W_])_ | _(?![^\W_])     # within a word, as in many names, it is harmless
    | :(?=//) | (?<=www)\.           # an address becomes a link
    | =(?==)
    | ^[-+=] | (?<=\d)[.)](?=\s|$)   # a list, or a heading
    """,
    re.IGNORECASE | re.VERBOSE,
)
# Characters of an address that are not quoted.
_OF_ADDRESSES = "%/:?#&=+,;@!~-._"
# The policy keeps the page from loading anything, whatever it contains.
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="UTF-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
      content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto;
  padding: 0 1rem; overflow-wrap: anywhere; }}
h1, h2 {{ line-height: 1.2; }}
h2 {{ margin-top: 2.2rem; font-size: 1.25rem; }}
table {{ border-collapse: collapse; display: block; overflow-x: auto; }}
th, td {{ text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #8884; }}
code {{ font: .88em ui-monospace, monospace; }}
pre {{ background: #8882; border-radius: .4rem; padding: .7rem .9rem; white-space: pre-wrap; }}
img {{ max-width: 100%; background: #fff; border-radius: .4rem; }}
td {{ overflow-wrap: normal; }}
td img {{ width: 4.5rem; image-rendering: pixelated; display: block; }}
</style>
</head>
<body>
{body}</body>
</html>
"""


class Markdown(str):
    """Text that is Markdown already and is filled in unescaped."""

    __slots__ = ()


def escape(value: object) -> Markdown:
    """Return a value as Markdown that shows it as text on one line.

    Args:
        value: any text, even hostile; a `Markdown` is returned unchanged.
    """
    if isinstance(value, Markdown):
        return value
    return Markdown(_MARKUP.sub(lambda found: f"&#{ord(found[0])};", one_line(value)))


def row(*cells: object) -> Markdown:
    """Return a row of a table; every cell in it is escaped."""
    return Markdown(f"| {' | '.join(map(escape, cells))} |")


def link(text: object, address: str | None) -> Markdown:
    """Return a link to a web page; the text alone where there is none.

    Args:
        text: is escaped.
        address: an http or https URL; others are not linked to.
    """
    if not address or not address.lower().startswith(("http://", "https://")):
        return escape(text)
    # A bracket, a bar or a space would end the link.
    return Markdown(f"[{escape(text)}]({quote(address, safe=_OF_ADDRESSES)})")


def fenced(text: str, language: str = "") -> Markdown:
    """Return a text of many lines as a block that shows it unchanged."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markdown(f"{fence}{language}\n{text.rstrip()}\n{fence}")


def one_line(value: object) -> str:
    """Return a value as text on one line, without control characters."""
    text = " ".join(str(value).split())
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


def fill(template: str, **values: Any) -> str:
    """Fill a template of `pipeline/reports/templates`; every value in it is escaped.

    Args:
        template: the name of its file.
        values: the variables of the template.
    """
    environment = Environment(
        loader=PackageLoader("pipeline.reports"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
        finalize=escape,
    )
    return environment.get_template(template).render(values)


def page(title: str, markdown: str) -> str:
    """Return Markdown as a self-contained HTML page; HTML in it is shown as text.

    Args:
        title: the title, as plain text.
        markdown: the body; images must be data URIs.
    """
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    return _PAGE.format(title=html.escape(title), body=body)
