"""Atomic files, shared folders, caches, checkpoints."""
