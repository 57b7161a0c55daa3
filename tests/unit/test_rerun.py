"""Schedulers that run a command again are known by their environment variables."""

from __future__ import annotations

import pytest

from camoxpert_cli.rerun import scheduler_variable

NAMES = (
    "TORCHELASTIC_MAX_RESTARTS",
    "SLURM_JOB_ID",
    "SKYPILOT_TASK_ID",
    "JOB_COMPLETION_INDEX",
)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, None),
        ({"TORCHELASTIC_MAX_RESTARTS": "0"}, None),
        ({"TORCHELASTIC_MAX_RESTARTS": "3"}, "TORCHELASTIC_MAX_RESTARTS"),
        ({"TORCHELASTIC_MAX_RESTARTS": "many"}, None),
        ({"SLURM_JOB_ID": "4711"}, "SLURM_JOB_ID"),
        ({"SLURM_JOB_ID": ""}, None),
        ({"SKYPILOT_TASK_ID": "sky-2025-01-01-task"}, "SKYPILOT_TASK_ID"),
        ({"JOB_COMPLETION_INDEX": "0"}, "JOB_COMPLETION_INDEX"),
        ({"TORCHELASTIC_MAX_RESTARTS": "0", "SLURM_JOB_ID": "4711"}, "SLURM_JOB_ID"),
    ],
)
def test_schedulers(given: dict[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the first of several tasks, whose index is 0; torchrun only if it may restart its workers."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)

    assert scheduler_variable() == expected
