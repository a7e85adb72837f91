"""Templates of web pages, of the report and of the dashboard: Jinja2, with every text escaped."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined

from tilesseg.monitoring import humanize

FILTERS = ("area", "counted", "duration", "pixels", "share", "span")
"""Functions of `humanize` that templates may use."""


@cache
def templates_of(package: str) -> Environment:
    """Templates in the folder of a package: `*.html.j2`; a value that is missing is an error, not a gap."""
    folder = files(package)

    def text_of(name: str) -> str:
        return folder.joinpath(name).read_text(encoding="utf-8")

    environment = Environment(
        loader=FunctionLoader(text_of),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {name: getattr(humanize, name) for name in FILTERS} | {"number": "{:,}".format}
    environment.globals["text_of"] = text_of
    return environment
