"""What goes wrong on one of two ranks ends both, soon, with one message that names it and the right exit code."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camoxpert_cli.data.cores import usable_cores
from tests.gpu.report import Report, in_one_line
from tests.gpu.run_command import run_well
from tests.gpu.two_ranks_on_one_card import AT_START, transport_of, variables_of
from tests.helpers.processes import train_command
from tests.helpers.sabotage import kill, sabotage
from tests.helpers.tiny_data import tiny_run, write_tiny_data

# Two epochs of two steps, each of 2 + 2 images, saved after each.
_SETTINGS: dict[str, Any] = {
    **{"epochs": 2, "stage1_epochs": 1, "batch_size": 2, "stage2_batch_size": 2, "save_every": "1"},
    **{"gpus": 2, "strategy": "ddp"},
}
_STEP = 3
_SECONDS = 40  # from the fault to the end of all processes
_PATIENCE = 90  # of this check with a whole run


@dataclass(frozen=True)
class Fault:
    """What rank 1 does in the middle of a run, as Python; the exit code that the run ends with, and what it says."""

    name: str
    action: str
    code: int
    says: str


_FAULTS = (
    Fault(
        "DataError",
        "from camoxpert_cli.errors import DataError; raise DataError('a picture cannot be read')",
        3,
        "Error: rank 1: a picture cannot be read",
    ),
    Fault(
        "out of memory",
        "import torch; raise torch.OutOfMemoryError('CUDA out of memory')",
        0,
        "Error: rank 1: the GPU ran out of memory in epoch 2",
    ),
    Fault("SIGKILL", kill("self", "SIGKILL"), 137, "Error: rank 1 was killed by SIGKILL"),
    Fault("SIGSTOP", kill("self", "SIGSTOP"), 75, "Error: rank 1 stopped responding"),
)


def check(report: Report) -> None:
    data = write_tiny_data(report.folder / "data")
    environment = {}
    if report.on_card:
        transport = transport_of(report)
        report.number("transport", transport)
        environment = variables_of(transport)
    # On a machine with few cores runs side by side would wait for each other.
    with ThreadPoolExecutor(len(_FAULTS) if usable_cores() >= 16 else 1) as pool:
        runs = [pool.submit(run_with, fault, report, data, environment) for fault in _FAULTS]
        for fault, run in zip(_FAULTS, runs, strict=True):
            try:
                report.number(f"{fault.name}: seconds to the end", run.result())
            except (AssertionError, OSError) as error:
                report.fail(f"{fault.name}: {in_one_line(error)}")


def run_with(fault: Fault, report: Report, data: Path, environment: dict[str, str]) -> float:
    """Seconds from the fault to the end of the run. Raises AssertionError where it does not end as it should."""
    folder = report.folder / fault.name.replace(" ", "-")
    timeout = "20s" if report.on_card else "10s"
    resolved = tiny_run(data, folder / "run", device=report.device, collective_timeout=timeout, **_SETTINGS)
    folder.mkdir()
    before = AT_START if report.on_card else ""
    faulty = sabotage(folder / "start", 1, _STEP, fault.action, before)
    command, variables = train_command(resolved), environment | faulty
    ended = run_well(folder / "command", command, seconds=_PATIENCE, code=fault.code, environment=variables)
    seconds = ended.at - (folder / "start" / "done").stat().st_mtime
    assert fault.says in ended.stderr, f"nothing says {fault.says!r}"
    assert "Traceback" not in ended.stderr, "a traceback reached the terminal"
    assert seconds < _SECONDS, f"ended {seconds:.0f} s after the fault, and {_SECONDS} are allowed"
    if fault.code == 0:
        assert ended.stderr.count("restarting") == 1, "not one restart"
        assert "using batch sizes 1 and 1" in ended.stderr, "not with half batches"
    return seconds
