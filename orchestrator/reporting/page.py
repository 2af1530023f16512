"""A Markdown report as one self-contained HTML file: its pictures are embedded, and it loads nothing."""

import base64
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from orchestrator.reporting.templating import render
from trainables.data.names import one_line
from trainables.storage.atomic import write_text

__all__ = ["write_html", "write_report_pages"]


def write_report_pages(path: Path, text: str, *, title: str) -> None:
    """Write a report twice, as Markdown and beside it as HTML.

    Args:
        path: The HTML file; see `write_html`.
        text: The report in Markdown, without a newline at its end.
        title: The page's title.
    """
    text += "\n"
    write_text(path.with_suffix(".md"), text)
    write_html(path, text, title=title)


def write_html(path: Path, markdown: str, *, title: str) -> None:
    """Render Markdown with its pictures as one HTML file; HTML in the text is escaped.

    Args:
        path: The file; the paths of pictures are relative to its folder.
        markdown: CommonMark with tables.
        title: The page's title.

    Raises:
        FileNotFoundError: A picture does not exist.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(markdown)
    for token in tokens:
        for child in token.children or ():
            if child.type == "image":
                child.attrs["src"] = _data_uri(path.parent / str(child.attrs["src"]))
    body = parser.renderer.render(_wrapped(tokens), parser.options, {})
    write_text(path, render("page.html.j2", title=one_line(title), body=Markup(body)) + "\n")


def _data_uri(picture: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"


def _wrapped(tokens: list[Token]) -> list[Token]:
    """Put every table into an element of its own, which scrolls where the page is too narrow for it."""
    wrapped = []
    for token in tokens:
        if token.type == "table_open":
            wrapped.append(Token("html_block", "", 0, content='<div class="table">\n'))
        wrapped.append(token)
        if token.type == "table_close":
            wrapped.append(Token("html_block", "", 0, content="</div>\n"))
    return wrapped
