"""Validated settings, free of torch."""
