"""What the texts of CUDA, cuDNN, cuBLAS and NCCL are taken for, as these libraries word them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.distributed import DistBackendError

from camoxpert_cli.errors import DataError, DeviceError, UsageError
from camoxpert_cli.parallel.cuda_errors import explaining_cuda_errors, is_out_of_memory, to_camox_error

# As torch raises it again in the process that called DataParallel.
IN_REPLICA = """Caught RuntimeError in replica 1 on device 1.
Original Traceback (most recent call last):
  File "torch/nn/parallel/parallel_apply.py", line 99, in _worker
    output = module(*input, **kwargs)
RuntimeError: {}
"""
NCCL = """NCCL error in: ../torch/csrc/distributed/c10d/NCCLUtils.cpp:94, unhandled cuda error (run with \
NCCL_DEBUG=INFO for details), NCCL version 2.28.9
ncclUnhandledCudaError: Call to CUDA function failed.
Last error:
Cuda failure 2 'out of memory'"""
NO_ENGINE = "GET was unable to find an engine to execute this computation"
NO_KERNEL = """CUDA error: no kernel image is available for execution on the device
CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be incorrect.
For debugging consider passing CUDA_LAUNCH_BLOCKING=1"""
NOT_DETERMINISTIC = (
    "adaptive_avg_pool2d_backward_cuda does not have a deterministic implementation, but you set "
    "'torch.use_deterministic_algorithms(True)'. You can turn off determinism just for this operation"
)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of "),
        torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("CUDA driver error: out of memory"),
        RuntimeError(NO_ENGINE),
        RuntimeError("FIND was unable to find an engine to execute this computation"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("Unable to find a valid cuDNN algorithm to run convolution"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
        DistBackendError(NCCL),
        RuntimeError(IN_REPLICA.format(NO_ENGINE)),
    ],
    ids=lambda error: str(error)[:60],
)
def test_memory_that_ran_out(error: RuntimeError) -> None:
    """Whichever library asked for it; without training it is a DeviceError of one line."""
    explained = to_camox_error(error)

    assert is_out_of_memory(error)
    assert isinstance(explained, DeviceError)
    assert "ran out of memory" in explained.message
    assert "\n" not in explained.message
    assert "--batch-size" in explained.hint


@pytest.mark.parametrize(
    "text",
    [
        "upsample_bilinear2d_nhwc only supports output tensors with less than INT_MAX elements, but got [512, 32, 512]",
        "Expected canUse32BitIndexMath(input) && canUse32BitIndexMath(output) to be true, but got false.",
    ],
)
def test_more_elements_than_a_kernel_can_index(text: str) -> None:
    """A smaller batch helps, as where memory runs out."""
    explained = to_camox_error(RuntimeError(text))

    assert is_out_of_memory(RuntimeError(text))
    assert isinstance(explained, DeviceError)
    assert explained.message.startswith("a batch is too large for the GPU")


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (torch.AcceleratorError, "CUDA error: no kernel image is available for execution on the device"),
        (RuntimeError, "CUDA error: no kernel image is available for execution on the device"),
        (lambda text: RuntimeError(IN_REPLICA.format(text)), "CUDA error: no kernel image is available for"),
        (lambda text: RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), "cuDNN error: CUDNN_STATUS_EXEC"),
        (lambda text: DistBackendError(NCCL.replace("2 'out of memory'", "1 'invalid argument'")), "NCCL error in"),
        (
            lambda text: RuntimeError("Unexpected error from cudaGetDeviceCount(). Error 803"),
            "Unexpected error from cudaGetDeviceCount",
        ),
    ],
)
def test_a_device_that_cannot_go_on(make: Callable[[str], RuntimeError], line: str) -> None:
    """A card without code, a fault of the driver: one sentence, exit code 5, and doctor."""
    error = make(NO_KERNEL)
    explained = to_camox_error(error)

    assert not is_out_of_memory(error)
    assert isinstance(explained, DeviceError)
    assert explained.message.startswith(f"the GPU cannot be used: {line}")
    assert "\n" not in explained.message
    assert (explained.hint, explained.exit_code) == ("camox doctor", 5)


def test_an_operation_without_a_deterministic_form() -> None:
    """It is named, with the flag that lets it be."""
    explained = to_camox_error(RuntimeError(NOT_DETERMINISTIC))

    assert isinstance(explained, UsageError)
    assert "adaptive_avg_pool2d_backward_cuda has no deterministic implementation" in explained.message
    assert "--no-deterministic" in explained.hint


def test_cublas_that_is_set_up_already() -> None:
    """In a notebook that used the GPU before: what to do is said, and it is no fault of the GPU."""
    explained = to_camox_error(
        RuntimeError(
            "Deterministic behavior was enabled with either `torch.use_deterministic_algorithms(True)` or "
            "`at::Context::setDeterministicAlgorithms(true)`, but this operation is not deterministic because it uses "
            "CuBLAS and you have CUDA >= 10.2."
        )
    )

    assert isinstance(explained, UsageError)
    assert "restart the notebook's kernel" in explained.hint


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(IN_REPLICA.format("a mistake of ours").replace("torch/nn", "cudnn_status_/nvml_")),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (3x4 and 5x6)"),
        ValueError("CUDA error: told by something else than torch"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("DataLoader worker (pid 9) is killed by signal: Bus error. It is possible that dataloader's "
                     "workers are out of shared memory."),
        DataError("pictures/CUDA error: out of memory.png cannot be read"),
    ],
    ids=lambda error: str(error)[:40],
)  # fmt: skip
def test_what_is_not_of_the_gpu(error: Exception) -> None:
    """A mistake of ours keeps its class and traceback, and an error that has its sentence keeps that."""
    assert not is_out_of_memory(error)
    assert to_camox_error(error) is None
    with pytest.raises(type(error)) as caught, explaining_cuda_errors():
        raise error
    assert caught.value is error
