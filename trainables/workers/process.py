"""Setup of a worker's process: its C library reuses freed memory, and PyTorch uses one core."""

__all__ = ["ALLOCATOR", "use_one_core"]

ALLOCATOR = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=4294967296:"
    "glibc.malloc.trim_threshold=4294967296"
}
"""Environment of a worker: freed memory is kept in large pages and reused, in place of being returned to the system
after every operation. Up to 1.7 times faster, benchmarks/RESULTS.md; other C libraries ignore it."""


def use_one_core(device: str) -> None:
    """Limit PyTorch to one thread if the device is the CPU, because a worker has one core.

    A worker on a GPU keeps PyTorch's default number of threads.
    """
    import torch  # only here: the driver reads ALLOCATOR without torch

    if device == "cpu":
        torch.set_num_threads(1)
