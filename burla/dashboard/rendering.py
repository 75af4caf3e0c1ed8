"""HTML of pages and of their parts, from templates; whatever is put into them is escaped."""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import jinja2

from burla.commands.jobs_view import size
from burla.dashboard.core.overview import compact


@cache
def environment() -> jinja2.Environment:
    """Return where the templates are."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("burla.dashboard"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= {"compact": compact, "size": size}
    return made


def render(template: str, facts: Mapping[str, Any]) -> str:
    """Return the HTML that a template makes of facts."""
    return environment().get_template(template).render(facts)


def render_parts(names: Iterable[str], facts: Mapping[str, Any]) -> dict[str, str]:
    """Return the HTML of parts of a page, by name."""
    return {name: render(f"parts/{name}.html", facts) for name in names}
