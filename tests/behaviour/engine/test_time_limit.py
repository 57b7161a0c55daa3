"""When a process began, as the system tells."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from camoxpert_cli.engine.time_limit import process_start


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc, which tells when a process began")
def test_start_of_a_process() -> None:
    """The start of a process is read to a few hundredths of a second, from inside and from outside."""
    before = time.monotonic()
    command = "import os, sys; from camoxpert_cli.engine.time_limit import process_start; "
    command += "print(process_start(os.getpid()), flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        inside = float(process.stdout.readline())
        outside = process_start(process.pid)
        after = time.monotonic()
        process.communicate()

    # Ticks are a hundredth of a second; the two clocks it is worked out from are read one after the other.
    assert before - 0.05 <= inside <= after + 0.05
    assert abs(outside - inside) <= 0.05
    assert process_start(os.getpid()) < before
