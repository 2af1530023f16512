"""Decisions before trials run: cost, compilation, share of a GPU."""
