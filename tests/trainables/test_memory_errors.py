"""Errors of memory: which name a GPU's and which a machine's, and settings that are refused for want of a GPU's."""

import errno

import pytest
import torch

from tests.support.gpu_memory import GPU_MEMORY_ERRORS
from trainables.errors import ConfigError
from trainables.memory_errors import (
    first_line,
    is_gpu_memory_error,
    is_host_memory_error,
    refused_without_gpu_memory,
)

HOST = [
    MemoryError("8 GiB"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
]
OTHERS = [
    RuntimeError("CUDA error: device-side assert triggered"),
    torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("Triton Error [CUDA]: out of resources: shared memory"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"),
    ValueError("CUDA out of memory"),  # by no library
    OSError(errno.ENOSPC, "No space left on device"),
]


@pytest.mark.parametrize("error", GPU_MEMORY_ERRORS.values(), ids=GPU_MEMORY_ERRORS.keys())
def test_every_name_of_a_gpus_is_known(error: RuntimeError) -> None:
    assert is_gpu_memory_error(error) and not is_host_memory_error(error)
    with pytest.raises(ConfigError) as refused, refused_without_gpu_memory("with N = 20", "lower N"):
        raise error
    assert str(refused.value) == f"out of GPU memory with N = 20 ({first_line(error)}); lower N"
    assert refused.value.__cause__ is error


@pytest.mark.parametrize("error", HOST, ids=lambda error: type(error).__name__)
def test_a_machines_is_another(error: Exception) -> None:
    assert is_host_memory_error(error) and not is_gpu_memory_error(error)


@pytest.mark.parametrize("error", OTHERS, ids=str)
def test_other_errors_stay_what_they_are(error: Exception) -> None:
    assert not is_gpu_memory_error(error) and not is_host_memory_error(error)
    with pytest.raises(type(error)) as raised, refused_without_gpu_memory("with N = 20", "lower N"):
        raise error
    assert raised.value is error


def test_the_first_line_leaves_out_advice() -> None:
    assert first_line(GPU_MEMORY_ERRORS["PyTorch's allocator"]) == "CUDA out of memory"
    assert first_line(GPU_MEMORY_ERRORS["the driver"]) == "CUDA error: out of memory"
    assert first_line(torch.OutOfMemoryError()) == "OutOfMemoryError"
