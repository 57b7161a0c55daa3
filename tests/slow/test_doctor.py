"""`camox doctor` on this machine, as a program, and a trial of two processes one of which fails."""

from __future__ import annotations

import pytest
import torch

from camoxpert_cli.doctor.take_readings import read_ddp
from camoxpert_cli.launch.processes import Failure
from tests.helpers.processes import TIMEOUT, camox
from tests.helpers.processes import run as run_process

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


@without_gpu
def test_this_machine() -> None:
    """Without a GPU doctor looks at all there is, ends with 5 and names what trains here; no traceback."""
    code, output = run_process(camox("doctor"), COLUMNS="80")

    assert code == 5
    assert "Traceback" not in output
    for name in ("driver", "torch", "packages", "OpenCV", "CPU", "RAM", "/dev/shm", "disk", "environment", "internet"):
        assert f" {name} " in output
    assert "Recommended until a GPU works: quickstart, strategy single" in output
    assert "Error: this machine cannot train on GPUs; failed checks: GPUs" in output
    assert max(map(len, output.splitlines())) <= 80


def test_ddp_with_a_rank_that_fails() -> None:
    """The rank that failed gives the reason, not the one that waited for it."""
    trial = read_ddp(["cpu", "nonsense"], TIMEOUT)

    assert isinstance(trial, Failure)
    assert "nonsense" in trial.why
