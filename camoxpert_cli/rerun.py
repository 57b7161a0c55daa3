"""Recognizes schedulers that run the very same command again after they have killed it."""

from __future__ import annotations

import os

# torchrun's: how often it may restart its workers, and how often this agent did so. An agent that joins later starts
# from 0, and restarts because a machine was added or lost do not count.
_COUNTS = ("TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_MAX_RESTARTS")
# Of Slurm, SkyPilot and a Kubernetes Indexed Job.
_SCHEDULERS = ("SLURM_JOB_ID", "SKYPILOT_TASK_ID", "JOB_COMPLETION_INDEX")


def scheduler_variable() -> str | None:
    """Return the name of an environment variable that only a scheduler or a torchrun that restarts sets, or None."""
    counts = (name for name in _COUNTS if os.environ.get(name, "").isdecimal() and int(os.environ[name]) > 0)
    return next(counts, None) or next((name for name in _SCHEDULERS if os.environ.get(name)), None)
