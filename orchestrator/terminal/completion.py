"""Shell completion of datasets, forms of an export and sweeps; `search_spaces.completion` completes spaces."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from trainables.data import catalog
from trainables.data.forms import FORMS

__all__ = ["complete_datasets", "complete_forms", "complete_sweeps"]


def complete_datasets(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the datasets whose names begin with the incomplete word."""
    return _beginning((*catalog.names(), *catalog.OWN_FACTS), incomplete)


def complete_forms(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the forms of an export that begin with the incomplete word."""
    return _beginning(FORMS, incomplete)


def complete_sweeps(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the sweeps of the workdir that begin with the last name of the incomplete word, after its earlier names.

    For a workdir at a URI nothing is completed: the shell would wait for the network.
    """
    workdir = ctx.params.get("workdir") or "runs"
    if "://" in workdir:
        return []
    root = Path(workdir)
    with suppress(RuntimeError):  # ~ names no home
        root = root.expanduser()
    sweeps = sorted(path.parent.name for path in root.glob("sweeps/*/settings.json"))
    before, comma, last = incomplete.rpartition(",")
    return [CompletionItem(f"{before}{comma}{item.value}") for item in _beginning(sweeps, last)]


def _beginning(words: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]
