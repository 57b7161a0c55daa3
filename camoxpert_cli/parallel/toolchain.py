"""What torch.compile needs in addition to torch. Looks for files only: nothing is run, and torch is not imported."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

# Triton, which generates the kernels of GPUs, supports no older ones.
OLDEST_CAPABILITY = (7, 0)


def missing_for_cpu() -> str:
    """Return what is missing to compile for the CPU, in words; empty if everything was found."""
    return _missing_compiler("C++", "CXX", ["clang++" if sys.platform == "darwin" else "g++"]) or _missing_headers()


def missing_for_gpu(capability: tuple[int, int]) -> str:
    """Return what is missing to compile for a GPU of that compute capability, in words; empty if all was found."""
    if capability < OLDEST_CAPABILITY:
        oldest, own = (".".join(map(str, each)) for each in (OLDEST_CAPABILITY, capability))
        return f"torch.compile requires a GPU of compute capability {oldest} or higher, and this one has {own}"
    if find_spec("triton") is None:
        return "the package triton, which torch.compile requires on GPUs, is not installed"
    # Triton compiles the code that launches a kernel.
    return _missing_compiler("C", "CC", ["gcc", "clang"]) or _missing_headers()


def _missing_compiler(language: str, variable: str, names: list[str]) -> str:
    chosen = os.environ.get(variable)
    if chosen:
        command = chosen.split()[0]
        return "" if shutil.which(command) else f"{variable} is {chosen}, and there is no such program"
    if any(map(shutil.which, names)):
        return ""
    return f"no {language} compiler was found ({' or '.join(names)}), which torch.compile requires"


def _missing_headers() -> str:
    folder = Path(sysconfig.get_path("include"))
    if (folder / "Python.h").is_file():
        return ""
    return f"{folder / 'Python.h'}, which torch.compile requires, was not found"
