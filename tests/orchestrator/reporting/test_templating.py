"""Text that the product did not choose stays text in Markdown; a template without its values is an error."""

import html
import re

import jinja2
import numpy as np
import pytest
from markdown_it import MarkdownIt

from orchestrator.reporting.sections.classes import class_section
from orchestrator.reporting.templating import escape_markdown, markdown_table, render

NAMES = ["a|b", "`code`", "<i>", "$x$ $y$", "*x* _y_ __z__", "[a](b)", "&amp;", "back\\slash", "a\\|b", "\\`x`", "x_y"]


def page(markdown: str) -> str:
    html: str = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    return html


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_shown_as_it_stands(name: str) -> None:
    text = page(f"of {escape_markdown(name)}.")
    assert html.unescape(text) == f"<p>of {name}.</p>\n"
    cells = re.findall(r"<td>(.*?)</td>", page(markdown_table(["name", "n"], [[escape_markdown(name), "1"]])))
    assert [html.unescape(cell) for cell in cells] == [name, "1"]


def test_a_name_of_several_lines_stays_in_one() -> None:
    assert escape_markdown("a\nb\r\n c") == "a b c"


def test_class_names_do_not_break_the_table() -> None:
    confusion = np.array([[[3, 1], [1, 3]], [[4, 0], [1, 3]]])
    text = page(class_section(["a|b", "<c>"], {"best": confusion, "random_real": confusion}, "best"))
    rows = re.findall(r"<tr>\n((?:<td>.*</td>\n)+)</tr>", text)
    assert [row.count("<td>") for row in rows] == [4, 4]
    assert rows[0].startswith("<td>a|b</td>") and rows[1].startswith("<td>&lt;c&gt;</td>")


def test_a_missing_value_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError, match="rows"):
        render("sections/cost.md.j2")
