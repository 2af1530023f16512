"""Errors that mean that there was no memory left: a GPU's has many names, and a machine's other ones.

The two are not alike. A GPU without memory says that the work is too large for it, or that too many share it. A machine
without memory says nothing about the work, because any process may have taken it.
"""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from trainables.errors import ConfigError

__all__ = ["first_line", "is_gpu_memory_error", "is_host_memory_error", "refused_without_gpu_memory"]

_GPU_MEMORY = re.compile(
    "|".join(
        [
            r"CUDA out of memory",  # PyTorch's allocator, which raises torch.OutOfMemoryError
            r"CUDA (driver )?error: out of memory",  # cudaErrorMemoryAllocation, by torch.AcceleratorError
            r"cudaErrorMemoryAllocation",
            r"Triton Error \[CUDA\]: out of memory",  # a compiled step's kernels
            r"unable to find an engine to execute this computation",  # cuDNN, whose engines had no room to work in
            r"CUDNN_STATUS_ALLOC_FAILED",
            r"CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
            r"CUBLAS_STATUS_ALLOC_FAILED",
            r"CUSOLVER_STATUS_ALLOC_FAILED",
        ]
    )
)
"""In the RuntimeError of PyTorch and of the libraries under it."""
_HOST_MEMORY = "can't allocate memory"
"""In the RuntimeError of PyTorch's allocator on CPUs."""


def is_gpu_memory_error(error: BaseException) -> bool:
    """Return whether an error says that a GPU had too little memory left."""
    import torch  # only here: the driver reads this module before it needs torch

    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and _GPU_MEMORY.search(str(error)) is not None


def is_host_memory_error(error: BaseException) -> bool:
    """Return whether an error says that the machine had no memory left for a process."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _HOST_MEMORY in str(error))


def first_line(error: BaseException) -> str:
    """Return the first sentence of an error's message; its name if it has none. CUDA's go on with advice."""
    line = str(error).strip().partition("\n")[0].partition(". ")[0]
    return line.rstrip(".") or type(error).__name__


@contextmanager
def refused_without_gpu_memory(what: str, remedy: str) -> Iterator[None]:
    """Refuse settings with which the GPU's memory does not suffice.

    Args:
        what: What ran out of memory, after "out of GPU memory".
        remedy: What to change.

    Raises:
        ConfigError: In place of an error for which `is_gpu_memory_error` is true.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_gpu_memory_error(error):
            raise
        raise ConfigError(f"out of GPU memory {what} ({first_line(error)}); {remedy}") from error
