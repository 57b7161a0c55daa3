"""Recognizes schedulers that run the very same command again after they have killed it."""

from __future__ import annotations

import os

# Of torchrun, Slurm, SkyPilot and a Kubernetes Indexed Job.
_RESTARTS = "TORCHELASTIC_RESTART_COUNT"
_SCHEDULERS = ("SLURM_JOB_ID", "SKYPILOT_TASK_ID", "JOB_COMPLETION_INDEX")


def scheduler_variable() -> str | None:
    """Return the name of an environment variable that only a scheduler or a restarted torchrun sets; None if none is.

    torchrun counts its restarts from 0: before the first one, it is not a sign of a second run.
    """
    restarts = os.environ.get(_RESTARTS, "")
    if restarts.isdecimal() and int(restarts) > 0:
        return _RESTARTS
    return next((name for name in _SCHEDULERS if os.environ.get(name)), None)
