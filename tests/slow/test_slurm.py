"""The guide's job script for one node, run by a real Slurm: one node on this machine, for the time of the test."""

from __future__ import annotations

import getpass
import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.cut_runs import steps
from tests.helpers.job_scripts import CAMOX, DATASET, changed, one_node, write_preset, write_programs
from tests.helpers.places import ROOT
from tests.helpers.processes import TIMEOUT
from tests.helpers.sabotage import sabotage
from tests.helpers.tiny_data import tiny_run

# Daemons are in folders that only root's PATH names.
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
_PROGRAMS = {name: shutil.which(name, path=_PATH) for name in ("slurmctld", "slurmd", "sbatch", "srun", "scontrol")}
_MISSING = [name for name, path in _PROGRAMS.items() if path is None]
pytestmark = pytest.mark.skipif(bool(_MISSING), reason=f"Slurm is not installed: no {', '.join(_MISSING)}")

# Seconds for a job with two minutes that is requeued at its time limit, and again if the machine is very busy.
_PATIENCE = 600
# Without keys, accounting, control groups; a job that is requeued waits for its old credentials to expire: 5 s.
_CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
AuthInfo=cred_expire=5
CredType=cred/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,batch_sched_delay=1
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def ask(*command: str) -> str:
    """Return what one of Slurm's programs prints."""
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=True).stdout


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether the condition holds within that time; Slurm's programs fail while its controller starts."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if condition():
                return True
        except subprocess.CalledProcessError:
            pass
        time.sleep(0.5)
    return False


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[None]:
    """A cluster of one node, to which SLURM_CONF leads; its jobs and daemons end with the test."""
    folder = tmp_path / "slurm"
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        controller, daemon = first.getsockname()[1], second.getsockname()[1]
    host = socket.gethostname().partition(".")[0]
    values = {"host": host, "user": getpass.getuser(), "controller": controller, "daemon": daemon, "folder": folder}
    (folder / "slurm.conf").write_text(_CONFIGURATION.format(**values))
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    os.environ["PATH"] = _PATH
    daemons = []
    try:
        for name in ("slurmctld", "slurmd"):
            with (folder / f"{name}.log").open("w") as log:
                daemons.append(subprocess.Popen([name, "-D"], stdout=log, stderr=log))
        is_up = until(lambda: ask("sinfo", "--noheader", "--format=%T").strip() == "idle", 60)
        assert is_up, "\n".join(log.read_text() for log in folder.glob("*.log"))
        yield
    finally:
        if len(daemons) == 2:
            subprocess.run(["scancel", "--user", getpass.getuser()], timeout=TIMEOUT, check=False)
            until(lambda: not ask("squeue", "--noheader"), 60)
        for process in reversed(daemons):
            process.terminate()
        for process in daemons:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.mark.usefixtures("slurm")
def test_a_job_is_requeued_at_its_time_limit(tiny_data: Path, tmp_path: Path) -> None:
    """Until its run is complete: no step is repeated or left out, and the job succeeds.

    The second step of the first start takes so long that no time remains for a third.
    """
    write_preset(tmp_path / "tiny.yaml", tiny_run(tiny_data, tmp_path))
    write_programs(tmp_path / "programs", {"camox": CAMOX})
    changes = {
        DATASET: "--preset tiny.yaml",
        "#SBATCH --gpus-per-node=4\n": "",
        "--gpus all ": "",
        "--cpus-per-task=32": "--cpus-per-task=2",
        "--time=12:00:00": "--time=2",
        "#SBATCH --signal=USR1@120\n": "",  # at once, for a job of two minutes
    }
    (tmp_path / "job.sh").write_text(changed(one_node(), changes))
    environment = {
        "PATH": f"{tmp_path / 'programs'}:{_PATH}",
        "PYTHONPATH": str(ROOT),
        "RANK": "0",
        **sabotage(tmp_path / "a", 0, 2, "import time; time.sleep(45)"),
    }
    command = ["sbatch", "--parsable", "job.sh"]
    asked = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, **environment}, capture_output=True, text=True, timeout=TIMEOUT
    )
    assert asked.returncode == 0, asked.stderr
    job = asked.stdout.strip()

    def field(name: str) -> str:
        return re.findall(rf"\b{name}=(\S+)", ask("scontrol", "show", "job", job))[0]

    until(lambda: field("JobState") not in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "REQUEUED"), _PATIENCE)
    output = (tmp_path / f"camox-{job}.log").read_text()
    folder = tmp_path / "runs" / "first"

    assert (field("JobState"), field("ExitCode")) == ("COMPLETED", "0:0"), output
    assert int(field("Restarts")) >= 1
    assert f"Stopped by the time limit of Slurm job {job} (" in output
    assert "Continuing the run in runs/first" in output
    assert (folder / "results.json").exists()
    assert [each["epoch"] for each in json.loads((folder / "history.json").read_text())] == [1, 2]
    assert steps(folder) == [(1, 4), (1, 8), (2, 3), (2, 6), (2, 8)]
