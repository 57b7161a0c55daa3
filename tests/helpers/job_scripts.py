"""The guide's job scripts for Slurm, and a stand-in for what such a script sees of Slurm."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from camoxpert_cli.commands.guide import FOLDER
from camoxpert_cli.config.resolve import Resolved, to_mapping
from tests.helpers.command_lines import code_blocks
from tests.helpers.places import ROOT
from tests.helpers.processes import run

JOB = "7"
DATASET = "--dataset-path /data/COD10K-v3"
# Programs by name, as shell scripts. `scontrol requeue` ends the script that calls it, as Slurm does.
_SLURM = {
    "srun": 'while [ "${1#--}" != "$1" ]; do shift; done\nexec "$@"\n',
    "squeue": 'date --date="@$END" +%FT%T\n',
    "scontrol": f"""
if [ "$1 $2" = "requeue {JOB}" ]; then touch requeued; kill $PPID; fi
if [ "$1 $2" = "show hostnames" ]; then echo first-node; echo second-node; fi
""",
}
CAMOX = f'exec {sys.executable} -m camoxpert_cli "$@"\n'


def one_node() -> str:
    """The script for a job on one node, as the guide prints it."""
    return _scripts()[0]


def several_nodes() -> str:
    """The script for a job on several nodes, as the guide prints it."""
    return _scripts()[1]


def _scripts() -> list[str]:
    blocks = code_blocks((FOLDER / "clusters.md").read_text(encoding="utf-8"), "bash")
    return [block for block in blocks if "#SBATCH" in block]


def changed(script: str, changes: Mapping[str, str]) -> str:
    """The script with some of its texts replaced by others, each of which has to be there once."""
    for old, new in changes.items():
        assert script.count(old) == 1, f"{old!r} is in the script {script.count(old)} times"
        script = script.replace(old, new)
    return script


def write_preset(path: Path, resolved: Resolved) -> None:
    """Write a preset with these settings, except for the run folder."""
    settings = to_mapping(resolved.config)
    del settings["run"]["checkpoint_dir"]
    path.write_text(yaml.safe_dump({"summary": "for a test", "hardware": "any", **settings}))


def write_programs(folder: Path, programs: Mapping[str, str]) -> None:
    """Write shell scripts that can be called by name where `folder` is in PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, script in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}")
        (folder / name).chmod(0o755)


def run_job(
    folder: Path, script: str, programs: Mapping[str, str], starts: Sequence[Mapping[str, str]], restarts: int = 0
) -> list[tuple[int, str]]:
    """Run a job script in `folder` as Slurm would, again whenever it has been requeued; return exit codes and outputs.

    `programs` are those besides Slurm's, `starts` the environments of as many starts as are expected at most, the first
    of which is restart number `restarts`. The exit code is negative where the script was requeued.
    """
    write_programs(folder / "programs", {**_SLURM, **programs})
    (folder / "job.sh").write_text(script)
    ends = []
    for count, environment in enumerate(starts, restarts):
        job = {
            "PATH": f"{folder / 'programs'}:/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "SLURM_JOB_ID": JOB,
            "SLURM_NNODES": "2",
            "SLURM_JOB_NODELIST": "node[1-2]",
            "SLURM_CPUS_PER_TASK": "1",
            **({"SLURM_RESTART_COUNT": str(count)} if count else {}),
        }
        ends.append(run(["env", "--chdir", str(folder), "bash", "job.sh"], **{**job, **environment}))
        if not (folder / "requeued").exists():
            return ends
        (folder / "requeued").unlink()
    raise AssertionError(f"the job was requeued after {len(starts)} starts: {ends[-1][1]}")
