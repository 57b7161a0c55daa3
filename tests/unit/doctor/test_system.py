"""Memory, disks and packages as the system tells them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from camoxpert_cli.doctor import system
from camoxpert_cli.doctor.readings import JobLimit, Space
from camoxpert_cli.launch.processes import Failure

MIB = 2**20


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "meminfo").write_text(f"MemTotal: {8 * 1024} kB\nMemAvailable: {6 * 1024} kB\nHugePages_Total: 0\n")
    return tmp_path


def test_memory_of_a_machine(proc: Path) -> None:
    """Without a container it is the machine's."""
    assert system.read_ram(proc, proc / "none") == Space(8 * MIB, 6 * MIB)


def test_memory_of_a_container(proc: Path) -> None:
    """A container's limit counts where it is less; what only caches files counts as free."""
    (proc / "memory.max").write_text(f"{4 * MIB}\n")
    (proc / "memory.current").write_text(f"{3 * MIB}\n")
    (proc / "memory.stat").write_text(f"anon 5\ninactive_file {MIB}\n")

    assert system.read_ram(proc, proc) == Space(4 * MIB, 2 * MIB)

    (proc / "memory.max").write_text("max\n")
    assert system.read_ram(proc, proc) == Space(8 * MIB, 6 * MIB)


def test_memory_of_an_older_container(proc: Path) -> None:
    """The same in the files of cgroup v1."""
    folder = proc / "memory"
    folder.mkdir()
    (folder / "memory.limit_in_bytes").write_text(f"{5 * MIB}")
    (folder / "memory.usage_in_bytes").write_text(f"{4 * MIB}")
    (folder / "memory.stat").write_text("cache 7\ntotal_inactive_file 0\n")

    assert system.read_ram(proc, proc) == Space(5 * MIB, MIB)


def test_what_the_system_does_not_tell(tmp_path: Path) -> None:
    """Neither is an error."""
    assert system.read_ram(tmp_path, tmp_path) == Failure("/proc/meminfo does not report it")
    assert system.read_space(tmp_path / "none") == Failure(f"{tmp_path / 'none'}: No such file or directory")


def test_packages_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions of what is installed, and only the variables that matter."""
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("SECRET", "x")

    assert system.read_packages()["torch"]
    assert system.read_environment()["RANK"] == "0"
    assert "SECRET" not in system.read_environment()


def test_limit_of_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read from the job's variables, of which a wrong one is not raised."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(time.time() + 600))
    limit = system.read_job_limit()

    assert isinstance(limit, JobLimit)
    assert limit.name == "the time limit of Slurm job 7"
    assert limit.left == pytest.approx(600, abs=1)

    monkeypatch.setenv("SLURM_JOB_END_TIME", "x")
    wrong = system.read_job_limit()
    assert isinstance(wrong, Failure)
    assert (wrong.exit_code, "SLURM_JOB_END_TIME is 'x'" in wrong.why) == (2, True)

    monkeypatch.delenv("SLURM_JOB_END_TIME")
    assert system.read_job_limit() is None
