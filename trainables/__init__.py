"""One unit of work each: the numerics of trajectory matching, in plain PyTorch, and the two classes that Ray runs.

Only `actor` and `trial` import ray; everything else works in a notebook without it.
"""
