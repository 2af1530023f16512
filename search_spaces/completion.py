"""Shell completion of a space: a registered name, or a file."""

import click
from click.shell_completion import CompletionItem

from search_spaces import names

__all__ = ["complete_spaces"]


def complete_spaces(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the registered spaces that start with `incomplete`; if there are none, the shell completes a file."""
    matching = [CompletionItem(name) for name in names() if name.startswith(incomplete)]
    return matching or [CompletionItem(incomplete, type="file")]
