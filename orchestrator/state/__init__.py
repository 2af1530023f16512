"""A sweep's settings, the places of its files, its progress, and its copy at a URI."""
