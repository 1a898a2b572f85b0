"""Markdown from a template, and a page from Markdown; what is filled in stays text in both.

What people name their classes ends up here, and pages are read by several programs: the browser,
the MLflow UI, a forge. So signs that may mean something to any of them become entities, which are
text to all of them.
"""

import html
import re
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt

_SIGNS = re.compile(
    r"""[&<>`*{}\[\]|$\\~^@#]
    | (?<![^\W_])_ | _(?![^\W_])     # within a word, as many names have it, it is only a sign
    | :(?=//) | (?<=www)\.           # an address becomes a link
    | =(?==)
    | ^[-+=] | (?<=\d)[.)](?=\s|$)   # a list, or a heading
    """,
    re.IGNORECASE | re.VERBOSE,
)
# What an address keeps as it is.
_OF_ADDRESSES = "%/:?#&=+,;@!~-._"
# The policy keeps the page from loading anything, whatever it says.
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
    """Text that is Markdown already, and is filled in as it is."""

    __slots__ = ()


def escape(value: object) -> Markdown:
    """Return a value as Markdown that shows it on one line, and nothing else.

    Args:
        value: any text, also hostile; a `Markdown` is returned as it is.
    """
    if isinstance(value, Markdown):
        return value
    return Markdown(_SIGNS.sub(lambda found: f"&#{ord(found[0])};", one_line(value)))


def row(*cells: object) -> Markdown:
    """Return a row of a table; every cell in it is escaped."""
    return Markdown(f"| {' | '.join(map(escape, cells))} |")


def link(text: object, address: str | None) -> Markdown:
    """Return a link to a web page; the text alone where there is none.

    Args:
        text: is escaped.
        address: of http or https; another one is not linked to.
    """
    if not address or not address.lower().startswith(("http://", "https://")):
        return escape(text)
    # A bracket, a bar or a space would end it.
    return Markdown(f"[{escape(text)}]({quote(address, safe=_OF_ADDRESSES)})")


def fenced(text: str, language: str = "") -> Markdown:
    """Return a text of many lines as a block that shows it sign for sign."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markdown(f"{fence}{language}\n{text.rstrip()}\n{fence}")


def one_line(value: object) -> str:
    """Return a value as text on one line, without signs that steer a terminal."""
    text = " ".join(str(value).split())
    return "".join(sign if sign.isprintable() else "\ufffd" for sign in text)


def fill(template: str, **values: Any) -> str:
    """Fill a template of `pipeline/reports/templates`; every value in it is escaped.

    Args:
        template: the name of its file.
        values: what it asks for.
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
    """Return Markdown as an HTML page that needs nothing else; HTML in it is shown as text.

    Args:
        title: of the page, as plain text.
        markdown: its body; images must be data URIs.
    """
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    return _PAGE.format(title=html.escape(title), body=body)
