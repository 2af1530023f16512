"""Whether a command has its process for itself, as from a shell, or shares it with a script, a notebook or a test."""

import click

__all__ = ["OWN_PROCESS", "owns_process"]

OWN_PROCESS = "own process"
"""The `obj` with which a process starts a click command that it exists for."""


def owns_process() -> bool:
    """Return whether the running command was started with `OWN_PROCESS`."""
    context = click.get_current_context(silent=True)
    return context is not None and context.find_root().obj == OWN_PROCESS
