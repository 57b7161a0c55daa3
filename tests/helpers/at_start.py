"""Has every Python process of an environment run a program before it does anything else."""

from __future__ import annotations

import os
from pathlib import Path

from tests.helpers.places import ROOT


def at_start(folder: Path, program: str) -> dict[str, str]:
    """The environment in which that is so; `folder`, which must not exist, gets the program.

    Folders that PYTHONPATH names already stay behind it: packages may come from there.
    """
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(program)
    known = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT), *([known] if known else [])])}
