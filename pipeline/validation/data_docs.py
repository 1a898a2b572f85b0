"""Great Expectations' Data Docs as one HTML page that loads nothing from anywhere."""

import html
from copy import deepcopy
from pathlib import Path
from typing import Any

from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
from great_expectations.render.view import DefaultJinjaPageView
from jinja2 import ChoiceLoader, DictLoader

from pipeline.artifacts.files import atomic
from pipeline.artifacts.validation import CheckResult

# The page that comes with Great Expectations loads scripts, styles and a logo from elsewhere.
# This one has its own style; the policy keeps a file's name from bringing in what we left out.
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="UTF-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
      content="default-src 'none'; style-src 'unsafe-inline'">
<title>Data Docs: {{ dataset | e }}</title>
<style>
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto;
  padding: 0 1rem; }
.ge-section { margin: 0 0 2rem; }
.alert { margin: 1.5rem 0 .5rem; padding: .4rem .8rem; border-radius: .4rem; background: #8882; }
h1, h5, h6, p { margin: 0; }
h5 { font-size: 1.15rem; }
h6, .h6 { font-size: 1rem; font-weight: 600; }
table { width: 100%; border-collapse: collapse; margin: .5rem 0; }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem;
  border-top: 1px solid #8884; }
th { white-space: nowrap; }
td table { font-size: .85rem; }
.show-scrollbars { overflow-x: auto; overflow-wrap: anywhere; }
.badge, code { font-family: ui-monospace, monospace; font-size: .85em; background: #8882;
  padding: 0 .3em; border-radius: .25em; }
i { font-style: normal; font-weight: 700; }
.fa-check-circle::after { content: "\\2713"; color: #1a7f37; }
.fa-times::after { content: "\\2717"; color: #d1242f; }
.fa-exclamation-triangle::after { content: "!"; color: #bf8700; }
</style>
</head>
<body>
<h1>Data Docs: {{ dataset | e }}</h1>
<table>
<tr><th></th><th>Check</th><th>Limit of</th><th>Found</th></tr>
{% for one in checked %}
<tr>
<td><i class="fa-{{ 'check-circle' if one.passed else 'times' }}"></i></td>
<td><code>{{ one.check }}</code></td>
<td>{{ one.severity }}</td>
<td>{{ one.message | e }}
{% if not one.passed and one.files %}
<br><small>{{ one.files | join(', ') | e }}</small>
{% endif %}</td>
</tr>
{% endfor %}
</table>
{% for section in sections %}
{% set section_loop = loop -%}
{% include 'section.j2' %}
{% endfor %}
</body>
</html>
"""


def save_data_docs(
    result: Any, checked: tuple[CheckResult, ...], dataset: str, folder: Path
) -> Path:
    """Write `index.html`, equal for equal results.

    Args:
        result: what Great Expectations returned for the suite.
        checked: the same as in the report, for the table at the top.
        dataset: the name for the heading.
        folder: where the page goes.
    """
    document = ValidationResultsPageRenderer().render(_escaped(result))
    overview = document.sections[0]
    # The header links to a page that does not exist; collapsed parts hold times and random ids.
    overview.content_blocks = [
        block
        for block in overview.content_blocks
        if block.content_block_type not in ("header", "collapse")
    ]
    view = DefaultJinjaPageView()
    view.env.loader = ChoiceLoader([DictLoader({"page.j2": PAGE}), view.env.loader])
    page = view.render(document, dataset=dataset, checked=checked)
    with atomic(folder / "index.html") as part:
        part.write_text("\n".join(line.rstrip() for line in page.splitlines() if line.strip()))
    return folder / "index.html"


def _escaped(result: Any) -> Any:
    """Copy the result with its text escaped, because the templates escape nothing."""
    copy = deepcopy(result)
    for one in copy.results:
        one.result = _escape(one.result)
    return copy


def _escape(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _escape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escape(item) for item in value]
    return html.escape(value) if isinstance(value, str) else value
