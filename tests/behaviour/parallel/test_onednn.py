"""Whether kernels of all shapes of a run are compiled only once."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from camoxpert_cli.parallel.onednn import keep_compiled_kernels
from tests.helpers.forked import RealPopen
from tests.helpers.places import ROOT

# Convolves images of 1,100 sizes, twice; oneDNN prints a line for each kernel that it compiles or finds.
PROGRAM = """
import torch
from torch.nn.functional import conv2d
from camoxpert_cli.parallel.onednn import keep_compiled_kernels

keep_compiled_kernels()
weight = torch.zeros(16, 8, 3, 3)
for _ in range(2):
    print("pass", flush=True)
    for number in range(1100):
        conv2d(torch.zeros(4, 8, 8 + number % 34, 8 + number // 34), weight)
"""


def compiled_again() -> int:
    """How many kernels are compiled in the second pass."""
    command = [sys.executable, "-c", PROGRAM]
    environment = {"PYTHONPATH": str(ROOT), "ONEDNN_VERBOSE": "profile_create", "OMP_NUM_THREADS": "2"}
    environment["GOMP_SPINCOUNT"] = "0"  # with other processes beside it, waiting threads would take each other's time
    with RealPopen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        _, first, second = process.communicate(timeout=120)[0].split("pass\n")
    assert first.count("cache_miss") >= 1100
    return second.count("cache_miss")


@pytest.mark.skipif(not torch._C._has_mkldnn, reason="torch was built without oneDNN")
def test_shapes_of_a_run() -> None:
    """1,100 of them, which do not fit oneDNN's own default of 1024."""
    assert compiled_again() == 0


@pytest.mark.parametrize("name", ["ONEDNN_PRIMITIVE_CACHE_CAPACITY", "DNNL_PRIMITIVE_CACHE_CAPACITY"])
def test_the_users_number(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """It stays, also under its former name, which oneDNN still reads."""
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)
    monkeypatch.setenv(name, "100")
    keep_compiled_kernels()
    assert os.environ[name] == "100"
    assert os.environ.get("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "100") == "100"
