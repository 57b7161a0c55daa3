"""Readings from the operating system: memory, disks, installed packages, environment variables."""

from __future__ import annotations

import os
import shutil
import time
from importlib.metadata import distributions
from pathlib import Path

from camoxpert_cli.doctor.readings import JobLimit, Space
from camoxpert_cli.engine.time_limit import slurm_job
from camoxpert_cli.errors import UsageError
from camoxpert_cli.launch.processes import Failure
from camoxpert_cli.parallel.worker import LAUNCHER_VARIABLES

_VARIABLES = (
    *LAUNCHER_VARIABLES,
    "CUDA_VISIBLE_DEVICES",
    "CUDA_LAUNCH_BLOCKING",
    "NCCL_P2P_DISABLE",
    "KAGGLE_KERNEL_RUN_TYPE",
)
_PACKAGES = ("torch", "torchvision", "timm", "albumentations", "numpy")
# All of them install the folder cv2.
OPENCV = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)


def read_ram(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> Space | Failure:
    """Return the memory available to this process: the machine's, within the container limit (cgroup v2, then v1)."""
    try:
        lines = (proc / "meminfo").read_text().splitlines()
        machine = {name: 1024 * int(rest.split()[0]) for name, rest in (line.split(":") for line in lines) if rest}
        total, free = machine["MemTotal"], machine["MemAvailable"]
    except (OSError, KeyError, ValueError):
        return Failure("/proc/meminfo does not report it")
    for folder, limit_name, usage_name, cache_name in (
        (cgroup, "memory.max", "memory.current", "inactive_file"),
        (cgroup / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            limit = int((folder / limit_name).read_text())  # "max" is no number
            usage = int((folder / usage_name).read_text())
            counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            continue
        # Inactive file cache is reclaimed when memory is needed.
        total, free = min(total, limit), min(free, limit - usage + int(counts.get(cache_name, 0)))
        break
    return Space(total, max(0, free))


def read_space(folder: Path) -> Space | Failure:
    """Return the size and free space of the file system that contains `folder`."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError as error:
        return Failure(f"{folder}: {error.strerror}")
    return Space(usage.total, usage.free)


def read_packages() -> dict[str, str]:
    """Return the versions of the installed packages that matter here, including every OpenCV package."""
    wanted = {*_PACKAGES, *OPENCV}
    found: dict[str, str] = {}
    for each in distributions():
        name = (each.metadata["Name"] or "").lower().replace("_", "-")
        if name in wanted:
            found.setdefault(name, each.version)
    return dict(sorted(found.items()))


def read_environment() -> dict[str, str]:
    """Return the environment variables that affect training and are set."""
    return {name: os.environ[name] for name in _VARIABLES if name in os.environ}


def read_job_limit() -> JobLimit | Failure | None:
    """Return the time limit of the Slurm job that this process belongs to; None without a job."""
    try:
        job = slurm_job()
    except UsageError as error:
        return Failure(error.message, error.hint, error.exit_code)
    return None if job is None else JobLimit(job.name, job.left(time.monotonic()))


def on_kaggle() -> bool:
    """Return whether this is a Kaggle session."""
    return "KAGGLE_KERNEL_RUN_TYPE" in os.environ or Path("/kaggle/input").is_dir()
