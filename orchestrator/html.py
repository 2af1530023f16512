"""A Markdown report as one HTML file that asks no network for anything: its pictures are inside."""

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from trainables.files import write_text

__all__ = ["write_html", "write_report_pages"]

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #1c2733; max-width: 60rem; margin: 0 auto; padding: 1rem; }}
h1, h2, h3 {{ line-height: 1.2; }}
h2 {{ margin-top: 2.5rem; border-bottom: 1px solid #d5dde3; }}
img {{ max-width: 100%; height: auto; }}
.table {{ overflow-x: auto; margin: 1rem 0; }}
table {{ border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }}
th, td {{ padding: 0.25rem 0.75rem 0.25rem 0; border-bottom: 1px solid #e4eaee; }}
th, td {{ text-align: left; white-space: nowrap; }}
pre {{ overflow-x: auto; background: #f4f7f9; padding: 0.75rem; }}
code {{ font-size: 0.9em; overflow-wrap: anywhere; }}
pre code {{ overflow-wrap: normal; }}
</style>
</head>
<body>
{body}</body>
</html>
"""


def write_report_pages(path: Path, parts: Sequence[str], *, title: str) -> None:
    """Write a report twice, as Markdown and beside it as HTML.

    Args:
        path: The HTML file; see `write_html`.
        parts: Paragraphs, headings and tables in Markdown.
        title: The page's title.
    """
    text = "\n\n".join(parts) + "\n"
    write_text(path.with_suffix(".md"), text)
    write_html(path, text, title=title)


def write_html(path: Path, markdown: str, *, title: str) -> None:
    """Render Markdown beside its pictures as one file; HTML in the text is shown as it is, and never becomes markup.

    Args:
        path: The file; pictures' places are taken relative to its folder.
        markdown: CommonMark with tables.
        title: The page's title.

    Raises:
        FileNotFoundError: A picture is not there.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(markdown)
    for token in tokens:
        for child in token.children or ():
            if child.type == "image":
                child.attrs["src"] = _data_uri(path.parent / str(child.attrs["src"]))
    body = parser.renderer.render(_wrapped(tokens), parser.options, {})
    page = _PAGE.format(title=html.escape(title), body=body)
    write_text(path, page)


def _data_uri(picture: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"


def _wrapped(tokens: list[Token]) -> list[Token]:
    """Put every table into a box of its own, which scrolls where the page is narrower."""
    wrapped = []
    for token in tokens:
        if token.type == "table_open":
            wrapped.append(Token("html_block", "", 0, content='<div class="table">\n'))
        wrapped.append(token)
        if token.type == "table_close":
            wrapped.append(Token("html_block", "", 0, content="</div>\n"))
    return wrapped
