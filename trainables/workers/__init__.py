"""Work that Ray runs, one unit of work per module; the only package of `trainables` that may import ray."""
