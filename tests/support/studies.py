"""Registered spaces that are studies, as the type that says so."""

from search_spaces import Study, load


def load_study(name: str) -> Study:
    """Load a space that must be a study."""
    space = load(name)
    assert isinstance(space, Study)
    return space
