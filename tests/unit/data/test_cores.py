from __future__ import annotations

import os
from pathlib import Path

import pytest

from camoxpert_cli.data.cores import auto_workers, cores_each, usable_cores


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 6),
        ({"cpu.max": "max 100000\n"}, 6),
        ({"cpu.max": "250000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "6400000 100000\n"}, 6),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 6),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
    ],
)
def test_usable_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: int) -> None:
    """The cores of this process are those of its affinity, or fewer where the container has a quota."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)

    assert usable_cores(tmp_path) == expected


@pytest.mark.parametrize(
    ("cores", "ranks", "on_cpu", "on_gpu"),
    [(4, 1, 4, 3), (4, 2, 2, 1), (2, 1, 2, 1), (1, 2, 0, 0), (64, 1, 8, 8), (9, 1, 8, 8), (8, 1, 8, 7), (1, 1, 1, 1)],
)
def test_auto_workers(monkeypatch: pytest.MonkeyPatch, cores: int, ranks: int, on_cpu: int, on_gpu: int) -> None:
    """Ranks share the cores evenly, up to a bound; each that launches kernels keeps a core for that, if it has two."""
    monkeypatch.setattr("camoxpert_cli.data.cores.usable_cores", lambda: cores)

    assert auto_workers(ranks, on_gpu=False) == on_cpu
    assert auto_workers(ranks, on_gpu=True) == on_gpu


def test_cores_of_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes share the cores evenly, and each has one where there are more of them than cores."""
    monkeypatch.setattr("camoxpert_cli.data.cores.usable_cores", lambda: 5)

    assert [cores_each(processes) for processes in (1, 2, 5, 8)] == [5, 2, 1, 1]
