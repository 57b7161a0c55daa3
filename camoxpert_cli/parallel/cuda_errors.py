"""Translate errors of CUDA, cuDNN, cuBLAS and NCCL into messages for the user.

These libraries report nearly everything as RuntimeError, so errors are recognized by their text. Does not import torch,
because the command line uses it too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from camoxpert_cli.errors import CamoxError, DeviceError, UsageError

_OUT_OF_MEMORY = (
    "out of memory",  # torch's allocator, the CUDA runtime and driver; NCCL: Cuda failure 2 'out of memory'
    "unable to find an engine to execute this computation",  # cuDNN, if no algorithm's workspace fits
    "unable to find a valid cudnn algorithm",  # the same in older releases
    "_alloc_failed",  # CUBLAS_STATUS_, CUDNN_STATUS_, CUSPARSE_STATUS_, CUSOLVER_STATUS_ and CUFFT_
    "_allocation_failed",  # CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED
    # A handle needs memory as well; torch, too, empties its cache and retries on this error.
    "cublas_status_not_initialized when calling `cublascreate",
)
# A batch with more elements than a kernel can index with 32 bits, for which a large GPU has the memory. The remedy is
# the same as for running out of memory.
_TOO_LARGE = (
    "less than int_max elements",  # upsample_bilinear2d_nhwc on an H200
    "canuse32bitindexmath",
    "int32_t max",
    "too large for 32-bit index",
)
_DEVICE = (
    "cuda error",  # also in DistBackendError: unhandled cuda error
    "cuda driver error",
    "cuda failure",
    "cudnn error",
    "cudnn_status_",
    "cublas_status_",
    "no kernel image is available",
    "cudagetdevicecount",
    "no nvidia driver",
    "nvml_",
)
_NOT_DETERMINISTIC = "does not have a deterministic implementation"
_CUBLAS_TOO_LATE = "not deterministic because it uses cublas"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether a smaller batch would help: a GPU ran out of memory, or a kernel out of 32-bit indices."""
    return out_of_memory_line(error) is not None


def out_of_memory_line(error: BaseException) -> str | None:
    """Return the line of an out-of-memory (or 32-bit index) error that says so; None for any other error."""
    return _line_with(_OUT_OF_MEMORY + _TOO_LARGE, error) if isinstance(error, RuntimeError) else None


def to_camox_error(error: BaseException) -> CamoxError | None:
    """Translate an error into one sentence and a hint; None if it does not come from the GPU.

    Returns DeviceError for CUDA and its libraries, including out of memory, and UsageError for an operation without a
    deterministic implementation.
    """
    if not isinstance(error, RuntimeError):
        return None
    if line := _line_with((_NOT_DETERMINISTIC,), error):
        operation = line.partition(" ")[0]
        return UsageError(
            "deterministic training is not possible with this network: "
            f"{operation} has no deterministic implementation on GPUs",
            "--no-deterministic (with camox resume: --set train.deterministic=off), or another --backbone",
        )
    if _line_with((_CUBLAS_TOO_LATE,), error):
        return UsageError(
            "this process used the GPU before deterministic training started, so cuBLAS is already initialized",
            "restart the notebook's kernel, or set CUBLAS_WORKSPACE_CONFIG=:4096:8 before the GPU is first used",
        )
    if line := out_of_memory_line(error):
        what = "a batch is too large for the GPU" if _line_with(_TOO_LARGE, error) else "the GPU ran out of memory"
        return DeviceError(
            f"{what}: {line}",
            "use a smaller --batch-size or --img-size; nvidia-smi shows which processes use the memory",
        )
    if line := _line_with(_DEVICE, error):
        return DeviceError(f"the GPU cannot be used: {line}", "camox doctor")
    return None


@contextmanager
def explaining_cuda_errors() -> Iterator[None]:
    """Raise errors that come from the GPU as translated by `to_camox_error`."""
    try:
        yield
    except RuntimeError as error:
        explained = to_camox_error(error)
        if explained is None:
            raise
        raise explained from error


def _line_with(phrases: tuple[str, ...], error: BaseException) -> str | None:
    """The first line of the error's text that contains one of the phrases, without a class name at its start.

    Indented lines quote code and paths, since DataParallel's errors contain a traceback, and are skipped.
    """
    for line in str(error).splitlines():
        if not line.startswith(" ") and any(phrase in line.lower() for phrase in phrases):
            head, _, rest = line.strip().partition(": ")
            return rest if head.endswith("Error") and " " not in head else line.strip()
    return None
