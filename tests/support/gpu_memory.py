"""The errors with which PyTorch, cuDNN, cuBLAS and Triton say that a GPU has no memory left, by name."""

import torch

__all__ = ["GPU_MEMORY_ERRORS"]

GPU_MEMORY_ERRORS: dict[str, RuntimeError] = {
    "PyTorch's allocator": torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 22.06 GiB"
    ),
    "the driver": torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be reported elsewhere"),
    "cuDNN's engines": RuntimeError("GET was unable to find an engine to execute this computation"),
    "cuDNN's handle": RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "Triton": RuntimeError("Triton Error [CUDA]: out of memory"),
}
