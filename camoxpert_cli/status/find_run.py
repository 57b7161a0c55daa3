"""The run folder that a user means."""

from __future__ import annotations

import shlex
from pathlib import Path

from camoxpert_cli.checkpoints.run_search import runs_below
from camoxpert_cli.errors import UsageError, nearest
from camoxpert_cli.run_folder import CHECKPOINTS, RunFolder
from camoxpert_cli.status.in_use import is_in_use


def find_run(source: Path) -> RunFolder:
    """Return the folder `source` if a run began there, that of the checkpoint `source`, or the only run below it.

    Raises UsageError, or OSError if `source` itself cannot be read.
    """
    start = f"camox train --checkpoint-dir {shlex.quote(str(source))} --dataset-path DATA, which starts a run there"
    if source.name in CHECKPOINTS and source.is_file():
        return RunFolder(source.parent)
    if not source.exists():
        names = [path.name for path in source.parent.glob("*")]
        similar = nearest(source.name, names)
        hint = f"{source.parent / similar[0]}, which has a similar name" if similar else start
        raise UsageError(f"run folder not found: {source}", hint)
    if not source.is_dir():
        raise UsageError(f"{source} is not a folder, expected a run folder", "pass a run folder, such as runs/first")
    found = runs_below(source, lambda folder: RunFolder(folder).holds_run)
    if not found and is_in_use(source):  # by a run that is being prepared, and has written nothing yet
        return RunFolder(source)
    if not found:
        raise UsageError(
            f"{source} contains no run, expected a run folder with config.yaml, metrics.jsonl or a checkpoint "
            f"({', '.join(CHECKPOINTS)})",
            start,
        )
    if len(found) > 1:
        raise UsageError(
            f"{source} contains {len(found)} runs: {', '.join(map(str, found))}",
            f"camox status {shlex.quote(str(found[0]))}",
        )
    return RunFolder(found[0])
