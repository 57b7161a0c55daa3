"""Recognizes schedulers that run the very same command again after they have killed it."""

from __future__ import annotations

import os

# How often torchrun may restart its workers. How often it has is no sign: an agent that joins later starts from 0, and
# restarts because a machine was added or lost do not count.
_RESTARTS = "TORCHELASTIC_MAX_RESTARTS"
# Of Slurm, SkyPilot and a Kubernetes Indexed Job.
_SCHEDULERS = ("SLURM_JOB_ID", "SKYPILOT_TASK_ID", "JOB_COMPLETION_INDEX")


def scheduler_variable() -> str | None:
    """Return the name of an environment variable that only a scheduler or a torchrun that restarts sets, or None."""
    restarts = os.environ.get(_RESTARTS, "")
    if restarts.isdecimal() and int(restarts) > 0:
        return _RESTARTS
    return next((name for name in _SCHEDULERS if os.environ.get(name)), None)
