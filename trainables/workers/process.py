"""Setup of a worker's process: memory, cores, and the arithmetic of everything that it computes."""

import os

from trainables.config.arithmetic import Arithmetic
from trainables.errors import ConfigError

__all__ = ["ALLOCATOR", "prepare_process", "use_arithmetic"]

ALLOCATOR = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=4294967296:"
    "glibc.malloc.trim_threshold=4294967296"
}
"""Environment of a worker: freed memory is kept in large pages and reused, in place of being returned to the system
after every operation. Up to 1.7 times faster, benchmarks/RESULTS.md; other C libraries ignore it."""
CUBLAS_WORKSPACE = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
"""Environment with which cuBLAS gives the same bits again; it takes about 24 MiB more of the GPU (documented)."""


def prepare_process(device: str, arithmetic: Arithmetic) -> None:
    """Prepare a worker's process: its arithmetic, and one thread on a CPU, because such a worker has one core.

    Every function and class that Ray runs begins with this, before it touches the GPU. A worker on a GPU keeps
    PyTorch's number of threads.

    Raises:
        ConfigError: The device does not have the precision.
    """
    import torch  # only here: the driver reads ALLOCATOR without torch

    if device == "cpu":
        torch.set_num_threads(1)
    use_arithmetic(device, arithmetic)


def use_arithmetic(device: str, arithmetic: Arithmetic) -> None:
    """Set how this process multiplies float32 on a GPU, and whether it computes the same bits again there.

    Only PyTorch's older switches are set: the newer ones then agree with them, while the compiler reads older ones that
    raise after a newer one was set. docs/design/arithmetic.md.

    Args:
        device: cpu or cuda.
        arithmetic: Nothing of it changes what a CPU computes.

    Raises:
        ConfigError: The device does not have the precision.
    """
    import torch

    if arithmetic.tf32 and device != "cuda":
        raise ConfigError(f"precision tf32 needs a GPU, and this is a {device}; use fp32 or bf16")
    torch.set_float32_matmul_precision("high" if arithmetic.tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = arithmetic.tf32
    deterministic = arithmetic.deterministic and device == "cuda"
    if deterministic:
        _fix_cublas_workspace()
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = deterministic
    if deterministic != torch.are_deterministic_algorithms_enabled():  # it loads a part of the compiler
        torch.use_deterministic_algorithms(deterministic)


def _fix_cublas_workspace() -> None:
    """Set the variable that cuBLAS reads when CUDA starts.

    Raises:
        RuntimeError: CUDA has started without it.
    """
    import torch

    name, value = CUBLAS_WORKSPACE
    if os.environ.get(name) != value and torch.cuda.is_initialized():
        raise RuntimeError(f"{name}={value} must be set before CUDA starts in a process, and CUDA has started")
    os.environ[name] = value
