"""Folders that a user names for results."""

from __future__ import annotations

from pathlib import Path

from camoxpert_cli.errors import UsageError


def make_out_folder(folder: Path, flag: str) -> None:
    """Make the folder that `flag` names. Raises UsageError where that is impossible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be made a folder: {error.strerror}", f"choose another folder with {flag}"
        ) from error
