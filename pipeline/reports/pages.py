"""The templates of HTML pages."""

from jinja2 import Environment, PackageLoader, StrictUndefined


def html_templates() -> Environment:
    """Return the templates of `pipeline/reports/templates`; all values in them are escaped."""
    return Environment(
        loader=PackageLoader("pipeline.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
