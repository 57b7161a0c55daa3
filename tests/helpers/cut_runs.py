"""A small run to be cut, and the comparison of its end with that of the uncut one."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from camoxpert_cli.checkpoints.format import read_checkpoint
from tests.helpers.compare import differences
from tests.helpers.run_files import read_json

# What may differ between a run that was cut and one that was not.
CIRCUMSTANCES = {
    "seconds",
    "epoch_seconds",
    "num_workers",
    "checkpoint_dir",
    "resume_from",
    "save_every",
    "session_limit",
    "max_restarts",
    "start",
}
# Two epochs of stage 1, two phases of one epoch each in stage 2. Three experts, of which each image takes two: some
# get no gradient in some steps. 8 images in groups of 2 + 2: steps at 4 and 8; in stage 2 of 3 + 3: at 6 and 8.
SETTINGS: dict[str, Any] = {
    "epochs": 4,
    "stage1_epochs": 2,
    "num_experts": 3,
    "batch_size": 2,
    "accumulation_steps": 2,
    "warmup_epochs": 1,
    "save_every": "1",
}


def history(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_json(folder / "history.json")
    return rows


def epochs_logged(folder: Path) -> list[dict[str, Any]]:
    """What metrics.jsonl tells of each epoch, such as which experts its images chose, but for how fast it went."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    timing = {"time", "seconds", "data_wait", "images_per_s", "memory_bytes"}
    return [{key: line[key] for key in line.keys() - timing} for line in lines if line["event"] == "epoch"]


def steps(folder: Path) -> list[tuple[int, int]]:
    """(epoch, samples) after each optimizer step, in the order in which they were made."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [(row["epoch"], row["samples"]) for row in rows if row["event"] == "step"]


def differing(
    first: Path, second: Path, ignored: Collection[str] = CIRCUMSTANCES, *, tolerance: float = 0.0
) -> list[str]:
    """Where weights, EMA, optimizer, progress, history or log of two runs differ by a bit, or more than `tolerance`."""

    def compare(ours: object, theirs: object, where: str) -> list[str]:
        return differences(ours, theirs, ignored, where, tolerance=tolerance)

    found = [
        found
        for name in ("last.pth", "best_model.pth")
        for found in compare(read_checkpoint(first / name), read_checkpoint(second / name), name)
    ]
    found += compare(history(first), history(second), "history")
    return found + compare(epochs_logged(first), epochs_logged(second), "log")
