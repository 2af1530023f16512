"""Benchmarks of speed and memory: a command a file, and no tests."""
