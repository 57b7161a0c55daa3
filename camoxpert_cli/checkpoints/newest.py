"""Find the newest intact checkpoint of a run."""

from __future__ import annotations

from pathlib import Path

from camoxpert_cli import console
from camoxpert_cli.checkpoints.format import Checkpoint, read_checkpoint
from camoxpert_cli.checkpoints.run_search import runs_below
from camoxpert_cli.errors import CheckpointError, nearest
from camoxpert_cli.run_folder import CHECKPOINTS, RunFolder


def find_checkpoint(source: Path) -> Checkpoint:
    """Return the newest intact checkpoint of a run, with a warning about those skipped. Raises CheckpointError."""
    if source.is_file():
        try:
            return Checkpoint(source, read_checkpoint(source))
        except CheckpointError as error:
            if any((source.parent / name).is_file() for name in CHECKPOINTS if name != source.name):
                error.hint = f"{RunFolder(source.parent).resume_command}, which uses the newest intact checkpoint there"
            raise
    folder = folder_of(source)
    passed_over = []
    for path in (folder / name for name in CHECKPOINTS):
        if path.is_file():
            try:
                return Checkpoint(path, read_checkpoint(path))
            except CheckpointError as error:
                console.warn(f"{error.message}; skipped")
                passed_over.append(path.name)
    raise CheckpointError(
        f"no checkpoint in {folder} can be read: {', '.join(passed_over)}", "start a new run in another folder"
    )


def folder_of(source: Path) -> Path:
    """Return the folder of the file `source`, `source` if it contains a checkpoint, or the only folder below that does.

    Raises CheckpointError, or OSError if `source` itself cannot be read.
    """
    if source.is_file():
        return source.parent
    if not source.exists():
        similar = nearest(source.name, [path.name for path in source.parent.glob("*")])
        raise CheckpointError(
            f"run folder or checkpoint not found: {source}",
            f"{source.parent / similar[0]}, which has a similar name"
            if similar
            else "pass a run folder, such as runs/first",
        )
    if not source.is_dir():
        raise CheckpointError(f"{source} is neither a file nor a folder", "pass a run folder, such as runs/first")
    found = runs_below(source, lambda folder: RunFolder(folder).holds_checkpoint)
    if not found:
        raise CheckpointError(
            f"{source} contains no checkpoint ({', '.join(CHECKPOINTS)})", "pass a run folder or a checkpoint file"
        )
    if len(found) > 1:
        raise CheckpointError(
            f"{source} contains {len(found)} runs: {', '.join(map(str, found))}", RunFolder(found[0]).resume_command
        )
    return found[0]
