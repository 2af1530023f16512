"""The size of a synthetic set in words, as titles and reports say it."""

__all__ = ["size_text"]


def size_text(ipc: int) -> str:
    """Return the size of a set of `ipc` images per class in words."""
    return f"{ipc} image{'' if ipc == 1 else 's'} per class"
