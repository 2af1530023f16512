"""The spaces that come with the project, one per module."""
