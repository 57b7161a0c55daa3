"""The guide's job scripts for Slurm, run as they are printed, with a stand-in for Slurm."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.cut_runs import steps
from tests.helpers.job_scripts import CAMOX, DATASET, changed, one_node, run_job, several_nodes, write_preset
from tests.helpers.sabotage import kill, sabotage
from tests.helpers.tiny_data import tiny_run

# The scripts, like Slurm, are for Linux.
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="date and env have other options here")

UNFINISHED = 85
REQUEUED = -15  # by SIGTERM, as Slurm ends a script that requeues its own job


def test_a_job_ends_when_its_run_is_complete(tiny_data: Path, tmp_path: Path) -> None:
    """Signaled ahead of its end, it is requeued and goes on; old Slurm does not set the time limit, and is asked."""
    write_preset(tmp_path / "tiny.yaml", tiny_run(tiny_data, tmp_path))
    script = changed(one_node(), {DATASET: "--preset tiny.yaml", "--gpus all ": ""})
    end = str(int(time.time()) + 3600)
    signaled = sabotage(tmp_path / "a", 0, 3, kill("self", "SIGUSR1"))
    (first, said), (last, then) = run_job(
        tmp_path, script, {"camox": CAMOX}, [{"END": end, "RANK": "0", **signaled}, {"SLURM_JOB_END_TIME": end}]
    )
    folder = tmp_path / "runs" / "first"

    assert (first, last) == (REQUEUED, 0), (said, then)
    for output in (said, then):
        assert "remaining of the time limit of Slurm job 7\n" in output
    assert "stopped by SIGUSR1" in said
    assert "Continuing the run in runs/first" in then
    assert (folder / "results.json").exists()
    assert [each["epoch"] for each in json.loads((folder / "history.json").read_text())] == [1, 2]
    assert steps(folder) == [(1, 4), (1, 8), (2, 3), (2, 6), (2, 8)]


def exits(code: int) -> str:
    """A program that does nothing but tell how it was called."""
    return f'echo "$0 $*" >> calls\nexit {code}\n'


@pytest.mark.parametrize("code", [0, 2, 6, 75, 137, 138])
def test_only_an_unfinished_run_is_requeued(tmp_path: Path, code: int) -> None:
    """A complete one, an error and a crash end the job, with the exit code of camox."""
    assert run_job(tmp_path, one_node(), {"camox": exits(code)}, [{"END": "1"}])[0][0] == code


def test_no_run_is_requeued_for_ever(tmp_path: Path) -> None:
    """One that stays unfinished ends after its hundredth restart."""
    starts = [{"END": "1"}] * 3
    ends = run_job(tmp_path, one_node(), {"camox": exits(UNFINISHED)}, starts, restarts=98)

    assert [code for code, _ in ends] == [REQUEUED, REQUEUED, UNFINISHED]
    assert len((tmp_path / "calls").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("torchrun", "status", "expected"),
    [(0, 0, [0]), (0, UNFINISHED, [REQUEUED, UNFINISHED]), (1, UNFINISHED, [1]), (0, 2, [2])],
    ids=["complete", "unfinished", "failed", "no run"],
)
def test_status_decides_after_torchrun(tmp_path: Path, torchrun: int, status: int, expected: list[int]) -> None:
    """It is asked only if torchrun succeeded: an error is not tried for ever, though its run is unfinished."""
    programs = {"torchrun": exits(torchrun), "camox": exits(status)}
    ends = run_job(tmp_path, several_nodes(), programs, [{"END": "1"}] * 2, restarts=99)
    calls = (tmp_path / "calls").read_text().splitlines()

    assert [code for code, _ in ends] == expected
    assert "--nnodes=2 " in calls[0]
    assert "--rdzv-endpoint=first-node:29500 --rdzv-id=7-99 " in calls[0]
    asked = [call.partition("/programs/")[2] for call in calls if "camox status" in call]
    assert asked == ["camox status runs/first --unfinished-exit-code 85"] * (len(ends) if torchrun == 0 else 0)
