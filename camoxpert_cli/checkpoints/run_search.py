"""Search a folder for the runs in it. Does not import torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from camoxpert_cli import console

_DEPTH = 4  # levels of folders that are searched


def runs_below(top: Path, is_run: Callable[[Path], bool]) -> list[Path]:
    """Return the folders in and below `top` that satisfy `is_run`, each once however many links lead to it.

    Runs within a run are not found. An unreadable folder is reported and skipped; raises OSError for `top` itself.
    """
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
                if is_run(folder):
                    found.append(folder)
                else:
                    below += sorted(path for path in folder.iterdir() if path.is_dir())
            except OSError as error:
                if folder == top:
                    raise
                console.warn(f"{folder} cannot be read: {error.strerror}; skipped")
        level = below
    return found
