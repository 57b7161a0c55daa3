"""The newest checkpoint of a run that can be trusted."""

from __future__ import annotations

from pathlib import Path

from camoxpert_cli import console
from camoxpert_cli.checkpoints.format import Checkpoint, read_checkpoint
from camoxpert_cli.errors import CheckpointError, nearest
from camoxpert_cli.run_folder import CHECKPOINTS, RunFolder

_DEPTH = 4  # folders below the one given in which a run is looked for


def find_checkpoint(source: Path) -> Checkpoint:
    """The newest checkpoint of a run that verifies; those passed over are named. Raises CheckpointError."""
    if source.is_file():
        try:
            return Checkpoint(source, read_checkpoint(source))
        except CheckpointError as error:
            if any((source.parent / name).is_file() for name in CHECKPOINTS if name != source.name):
                error.hint = (
                    f"{RunFolder(source.parent).resume_command} takes the newest checkpoint there that is whole"
                )
            raise
    folder = folder_of(source)
    passed_over = []
    for path in (folder / name for name in CHECKPOINTS):
        if path.is_file():
            try:
                return Checkpoint(path, read_checkpoint(path))
            except CheckpointError as error:
                console.warn(f"{error.message}; it is passed over")
                passed_over.append(path.name)
    raise CheckpointError(
        f"no checkpoint in {folder} can be read: {', '.join(passed_over)}", "start the run anew in another folder"
    )


def folder_of(source: Path) -> Path:
    """The folder of the file `source`, `source` where it holds a checkpoint, or the only folder below it that does.

    Raises CheckpointError, OSError where `source` itself must not be looked into.
    """
    if source.is_file():
        return source.parent
    if not source.exists():
        similar = nearest(source.name, [path.name for path in source.parent.glob("*")])
        raise CheckpointError(
            f"there is no run folder or checkpoint {source}",
            f"did you mean {source.parent / similar[0]}?" if similar else "give a run folder, such as runs/first",
        )
    if not source.is_dir():
        raise CheckpointError(f"{source} is neither a file nor a folder", "give a run folder, such as runs/first")
    found = _below(source)
    if not found:
        raise CheckpointError(
            f"{source} holds no checkpoint ({', '.join(CHECKPOINTS)})", "give the folder of a run, or a checkpoint file"
        )
    if len(found) > 1:
        raise CheckpointError(
            f"{source} holds {len(found)} runs: {', '.join(map(str, found))}", RunFolder(found[0]).resume_command
        )
    return found[0]


def _below(top: Path) -> list[Path]:
    """Each folder once, however many links lead to it; one that cannot be looked into is named and passed over."""
    found: list[Path] = []
    seen: set[Path] = set()
    level = [top]
    for _ in range(_DEPTH + 1):
        below: list[Path] = []
        for folder in level:
            if (real := folder.resolve()) in seen:
                continue
            seen.add(real)
            try:
                if any((folder / name).is_file() for name in CHECKPOINTS):
                    found.append(folder)
                else:
                    below += sorted(path for path in folder.iterdir() if path.is_dir())
            except OSError as error:
                if folder == top:
                    raise
                console.warn(f"{folder} cannot be looked into: {error.strerror}; it is passed over")
        level = below
    return found
