"""oneDNN, which computes convolutions on the CPU."""

from __future__ import annotations

import os

_CAPACITY = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
_FORMER_NAME = "DNNL_PRIMITIVE_CACHE_CAPACITY"


def keep_compiled_kernels() -> None:
    """Let oneDNN keep 8192 compiled kernels instead of 1024, unless the user has set a number.

    It compiles a kernel for each shape. An expert gets another number of images in almost every batch, so a run needs
    more than 1024, and would compile some of them again and again. 2,600 small kernels take 16 MB. oneDNN reads the
    variable once, at the first convolution of the process; call this before it.
    """
    if _FORMER_NAME not in os.environ:
        os.environ.setdefault(_CAPACITY, "8192")
