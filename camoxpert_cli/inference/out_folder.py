"""Output folders given by the user."""

from __future__ import annotations

from pathlib import Path

from camoxpert_cli.errors import UsageError


def make_out_folder(folder: Path, flag: str) -> None:
    """Create the folder given with `flag`. Raises UsageError if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot create the folder {folder}: {error.strerror}", f"choose another folder with {flag}"
        ) from error
