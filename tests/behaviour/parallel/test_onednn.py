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
import sys
import torch
from torch.nn.functional import conv2d
from camoxpert_cli.parallel.onednn import keep_compiled_kernels

if sys.argv[1:]:
    keep_compiled_kernels()
weight = torch.zeros(16, 8, 3, 3)
for _ in range(2):
    print("pass", flush=True)
    for number in range(1100):
        conv2d(torch.zeros(4, 8, 8 + number % 34, 8 + number // 34), weight)
"""


def compiled_again(*arguments: str, **environment: str) -> int:
    """How many kernels are compiled in the second pass."""
    command = [sys.executable, "-c", PROGRAM, *arguments]
    environment = {"PYTHONPATH": str(ROOT), "ONEDNN_VERBOSE": "profile_create", "OMP_NUM_THREADS": "2", **environment}
    with RealPopen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        _, first, second = process.communicate(timeout=120)[0].split("pass\n")
    assert first.count("cache_miss") >= 1100
    return second.count("cache_miss")


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")
def test_shapes_of_a_run() -> None:
    """They do not fit oneDNN's own default; with the user's own number, nothing changes."""
    assert compiled_again() > 1000
    assert compiled_again("keep") == 0
    assert compiled_again("keep", ONEDNN_PRIMITIVE_CACHE_CAPACITY="100") > 1000


def test_the_users_number_under_its_former_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which oneDNN still reads."""
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)
    monkeypatch.setenv("DNNL_PRIMITIVE_CACHE_CAPACITY", "100")
    keep_compiled_kernels()
    assert "ONEDNN_PRIMITIVE_CACHE_CAPACITY" not in os.environ
