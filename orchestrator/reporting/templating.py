"""The Jinja2 environment of the reports: templates of Markdown, of the HTML page and of the pseudo-code."""

import re
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from trainables.data.names import one_line

__all__ = ["escape_markdown", "markdown_table", "render"]

_SPECIAL = re.compile(r"[\\`*\[\]<>|$&~]|(?<![^\W_])_|_(?![^\W_])")
"""What Markdown may read as markup; underscores inside a word it does not."""


def render(template: str, **values: Any) -> str:
    """Return a template's text with its values filled in, without newlines at its ends.

    Several blank lines in a row, which parts that are left out leave behind, become one.

    HTML escapes every value that is not `markupsafe.Markup`. Markdown escapes only what its template passes through
    the filter `escaped`: names and messages that the product did not choose.

    Args:
        template: File name in `orchestrator/reporting/templates`.
        values: The template's variables by name.

    Raises:
        jinja2.UndefinedError: The template uses a variable that `values` lacks.
    """
    text = _environment().get_template(template).render(**values)
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n")


def escape_markdown(text: str) -> str:
    """Return a text that Markdown shows as it stands, in one line, in a paragraph and in the cell of a table."""
    return _SPECIAL.sub(r"\\\g<0>", one_line(text))


def markdown_table(headings: list[str], rows: list[list[str]]) -> str:
    """Return rows of cells as a Markdown table."""
    lines = [f"| {' | '.join(cells)} |" for cells in (headings, *rows)]
    return "\n".join([lines[0], "|---" * len(headings) + "|", *lines[1:]])


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("orchestrator.reporting"),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["escaped"] = escape_markdown
    environment.globals["table"] = markdown_table
    return environment
