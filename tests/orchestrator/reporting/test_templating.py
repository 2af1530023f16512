"""Text that the product did not choose stays text in Markdown; a template without its values is an error."""

import html
import re
from pathlib import Path

import jinja2
import numpy as np
import pytest
from markdown_it import MarkdownIt

from orchestrator.reporting.page import write_report_pages
from orchestrator.reporting.sections.classes import class_section
from orchestrator.reporting.templating import escape_markdown, markdown_table, render
from tests.support.names import HOSTILE
from trainables.data.names import shortened

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


def test_hostile_class_names_stand_in_the_page_as_they_are_and_make_nothing_else(tmp_path: Path) -> None:
    count = len(HOSTILE)
    confusion = np.ones((2, count, count), dtype=np.int64) + 9 * np.eye(count, dtype=np.int64)
    confusions = {"best": confusion, "random_real": confusion}
    sections = [
        class_section(list(names), {set_: each[:, :12, :12] for set_, each in confusions.items()}, "best")
        for names in (HOSTILE[:12], HOSTILE[12:])
    ]
    text = re.sub(r"!\[.*?\]\(.*?\)", "", "\n\n".join(sections))
    write_report_pages(tmp_path / "report.html", text, title=" ".join(HOSTILE))
    html_page = (tmp_path / "report.html").read_text(encoding="utf-8")
    cells = [html.unescape(row) for row in re.findall(r"<tr>\n<td>(.*?)</td>", html_page)]
    assert sorted(cells) == sorted(shortened(name, 60) for name in HOSTILE)
    assert all(row.count("<td>") == 4 for row in re.findall(r"<tr>(.*?)</tr>", html_page, re.S) if "<td>" in row)
    assert "<script" not in html_page and "<em>" not in html_page and "<a " not in html_page
    assert not {"\x1b", "\x00", "\u202e"} & set(html_page)


def test_a_missing_value_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError, match="rows"):
        render("sections/cost.md.j2")
